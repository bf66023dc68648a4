//! A rank's share of the network: the embedding (first stage), some layers, the head (last stage); one
//! forward and two backward functions over one microbatch.

use super::arena::Arena;
use super::block::{Block, BlockTape};
use super::head::{Head, HeadTape};
use super::parameters::Table;
use super::{Shape, Share, VOCABULARY};
use crate::error::Result;
use crate::math::attention::Heads;
use crate::math::{Real, embedding};
use crate::parallel::group::Group;

/// Sequences of equal length: the tokens and, one place on, the tokens to predict.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) tokens: Vec<u8>,
    pub(crate) targets: Vec<u8>,
}

/// What one microbatch keeps between its forward and its backward halves.
pub(crate) struct Tape<R> {
    /// The residual stream before the first layer and after each: `[n, width]`.
    residual: Vec<Vec<R>>,
    /// Its gradient, which walks from the last layer to the first.
    pub(crate) gradient: Vec<R>,
    blocks: Vec<BlockTape<R>>,
    head: Option<HeadTape<R>>,
}

impl<R> Tape<R> {
    /// What the previous stage sends.
    pub(crate) fn input(&mut self) -> &mut [R] {
        &mut self.residual[0]
    }

    /// What the next stage receives.
    pub(crate) fn output(&self) -> &[R] {
        &self.residual[self.residual.len() - 1]
    }
}

/// One rank's parameters and the arithmetic over them.
pub(crate) struct Stage<R> {
    pub(crate) table: Table,
    pub(crate) values: Arena<R>,
    heads: Heads,
    width: usize,
    /// The first token whose row this rank holds.
    first_token: usize,
}

impl<R: Real> Stage<R> {
    /// The share of a network, with its initial values, for microbatches of `sequences` full contexts.
    pub(crate) fn new(shape: &Shape, share: &Share, sequences: usize, seed: u64) -> Self {
        let table = Table::new(shape, share);
        let (rank, ranks) = share.tensor;
        let heads = Heads {
            sequences,
            length: shape.context,
            count: shape.heads / ranks,
            size: shape.width / shape.heads,
        };
        Self {
            values: table.initial(seed),
            table,
            heads,
            width: shape.width,
            first_token: rank * (VOCABULARY / ranks),
        }
    }

    /// Room for one microbatch.
    pub(crate) fn tape(&self) -> Tape<R> {
        let places = &self.table.places;
        let n = self.heads.sequences * self.heads.length;
        let rows = || vec![R::ZERO; n * self.width];
        let vocabulary = places.tokens.as_ref().map_or(0, |tokens| tokens.len() / self.width);
        let block =
            |p: &super::parameters::BlockPlaces| BlockTape::new(&self.heads, self.width, p.fc.bias.len());
        Tape {
            residual: (0..=places.blocks.len()).map(|_| rows()).collect(),
            gradient: rows(),
            blocks: places.blocks.iter().map(block).collect(),
            head: places.norm.as_ref().map(|_| HeadTape::new(n, self.width, vocabulary)),
        }
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = Block<'_>> + ExactSizeIterator {
        let block = |places| Block { places, heads: self.heads, width: self.width };
        self.table.places.blocks.iter().map(block)
    }

    fn head(&self) -> Option<Head<'_>> {
        let places = &self.table.places;
        let (tokens, norm) = (places.tokens.as_ref()?, places.norm.as_ref()?);
        Some(Head { tokens, norm, width: self.width, first: self.first_token })
    }

    /// Embeds the tokens (first stage) or takes the tape's input, passes it through the layers and, on the
    /// last stage, the final norm.
    pub(crate) fn hidden(&self, tokens: &[u8], tape: &mut Tape<R>, tensor: &mut Group) -> Result<()> {
        let places = &self.table.places;
        if let (Some(positions), Some(table)) = (&places.positions, &places.tokens) {
            let x = &mut tape.residual[0];
            let table = &self.values[table.clone()];
            embedding::forward_share(tokens, table, self.first_token, self.width, x);
            tensor.sum(x)?;
            embedding::add_positions(x, &self.values[positions.clone()], self.heads.length, self.width);
        }
        for (i, (block, kept)) in self.blocks().zip(&mut tape.blocks).enumerate() {
            let (before, after) = tape.residual.split_at_mut(i + 1);
            block.forward(&self.values, &before[i], &mut after[0], kept, tensor)?;
        }
        if let (Some(head), Some(kept)) = (self.head(), &mut tape.head) {
            head.norm(&self.values, &tape.residual[tape.blocks.len()], kept);
        }
        Ok(())
    }

    /// The logits of position `row` after [`Stage::hidden`], on a last stage.
    pub(crate) fn logits(&self, tape: &Tape<R>, row: usize, logits: &mut [R]) {
        if let (Some(head), Some(kept)) = (self.head(), &tape.head) {
            head.logits(&self.values, kept, row, logits);
        }
    }

    /// The forward pass; on the last stage the sum of the tokens' losses, else zero. Gradients will be
    /// those of `weight` times that sum over all microbatches.
    pub(crate) fn forward(
        &self,
        batch: &Batch,
        weight: R,
        tape: &mut Tape<R>,
        tensor: &mut Group,
    ) -> Result<f64> {
        self.hidden(&batch.tokens, tape, tensor)?;
        match (self.head(), &mut tape.head) {
            (Some(head), Some(kept)) => head.loss(&self.values, &batch.targets, weight, kept, tensor),
            _ => Ok(0.0),
        }
    }

    /// From the gradient of the output (received, or on the last stage the loss's own) to that of the
    /// input, in the tape's `gradient`.
    pub(crate) fn backward_input(&self, tape: &mut Tape<R>, tensor: &mut Group) -> Result<()> {
        let Tape { residual, gradient, blocks, head: kept } = tape;
        if let (Some(head), Some(kept)) = (self.head(), kept) {
            head.backward_input(&self.values, &residual[blocks.len()], gradient, kept, tensor)?;
        }
        for ((block, kept), input) in self.blocks().zip(blocks).zip(residual).rev() {
            block.backward_input(&self.values, input, gradient, kept, tensor)?;
        }
        Ok(())
    }

    /// Adds this microbatch's share to the gradients of the parameters; needs no other rank.
    pub(crate) fn backward_weight(&self, batch: &Batch, tape: &Tape<R>, gradients: &mut [R]) {
        let places = &self.table.places;
        if let (Some(head), Some(kept)) = (self.head(), &tape.head) {
            head.backward_weight(tape.output(), gradients, kept);
        }
        for ((block, kept), input) in self.blocks().zip(&tape.blocks).zip(&tape.residual).rev() {
            block.backward_weight(input, gradients, kept);
        }
        if let (Some(positions), Some(table)) = (&places.positions, &places.tokens) {
            let (length, width, first) = (self.heads.length, self.width, self.first_token);
            let d_positions = &mut gradients[positions.clone()];
            embedding::backward_positions(&tape.gradient, length, width, d_positions);
            let d_table = &mut gradients[table.clone()];
            embedding::backward_weight(&batch.tokens, &tape.gradient, first, width, d_table);
        }
    }
}
