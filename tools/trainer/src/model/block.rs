//! One decoder layer, divided over a tensor-parallel group as in Megatron-LM (Shoeybi et al. 2019):
//!
//! ```text
//! input ─┬─ norm 1 ─f─ qkv (by heads) ─ attention ─ out (by rows) ─g─┐
//!        └────────────────────────────────────────────────────── + ─┴─ middle
//! middle ┬─ norm 2 ─f─ fc (by columns) ─ gelu ──── out (by rows) ─g─┐
//!        └────────────────────────────────────────────────────── + ─┴─ output
//! ```
//!
//! `f` passes its input on and sums gradients over the group; `g` sums activations and passes gradients on.
//! Both are [`Group::sum`], called in the one direction that needs it.

use super::parameters::BlockPlaces;
use crate::error::Result;
use crate::math::attention::{self, Heads};
use crate::math::layer_norm::{self, Moments};
use crate::math::{Real, gelu, linear};
use crate::parallel::group::Group;

/// What the forward half keeps for the backward halves, and the input half for the weight half: for one
/// microbatch of `n` tokens in one layer. The layer's input and output belong to the stage.
pub(crate) struct BlockTape<R> {
    moments_1: Moments<R>,
    normed_1: Vec<R>,
    qkv: Vec<R>,
    probabilities: Vec<R>,
    attended: Vec<R>,
    middle: Vec<R>,
    moments_2: Moments<R>,
    normed_2: Vec<R>,
    fc: Vec<R>,
    activated: Vec<R>,
    // Gradients of what the like-named fields (or the output) hold.
    d_output: Vec<R>,
    d_fc: Vec<R>,
    d_normed_2: Vec<R>,
    d_middle: Vec<R>,
    d_attended: Vec<R>,
    d_qkv: Vec<R>,
    d_normed_1: Vec<R>,
}

impl<R: Real> BlockTape<R> {
    /// For the local `heads` of a model of this `width`; `hidden` is the local width between fc and out.
    pub(crate) fn new(heads: &Heads, width: usize, hidden: usize) -> Self {
        let n = heads.sequences * heads.length;
        let rows = |width: usize| vec![R::ZERO; n * width];
        let local = heads.count * heads.size;
        Self {
            moments_1: Moments::new(n),
            normed_1: rows(width),
            qkv: rows(3 * local),
            probabilities: vec![R::ZERO; heads.probabilities()],
            attended: rows(local),
            middle: rows(width),
            moments_2: Moments::new(n),
            normed_2: rows(width),
            fc: rows(hidden),
            activated: rows(hidden),
            d_output: rows(width),
            d_fc: rows(hidden),
            d_normed_2: rows(width),
            d_middle: rows(width),
            d_attended: rows(local),
            d_qkv: rows(3 * local),
            d_normed_1: rows(width),
        }
    }
}

/// One layer's arithmetic: its parameters' places and its sizes.
pub(crate) struct Block<'a> {
    pub(crate) places: &'a BlockPlaces,
    pub(crate) heads: Heads,
    pub(crate) width: usize,
}

impl Block<'_> {
    /// `output = layer(input)`, both `[n, width]`; `values` is the arena of parameters.
    pub(crate) fn forward<R: Real>(
        &self,
        values: &[R],
        input: &[R],
        output: &mut [R],
        tape: &mut BlockTape<R>,
        tensor: &mut Group,
    ) -> Result<()> {
        let at = |place: &std::ops::Range<usize>| &values[place.clone()];
        let p = self.places;

        let (w, b) = (at(&p.norm_1.weight), at(&p.norm_1.bias));
        layer_norm::forward(input, w, b, &mut tape.normed_1, &mut tape.moments_1);
        linear::forward(&tape.normed_1, at(&p.qkv.weight), at(&p.qkv.bias), &mut tape.qkv);
        attention::forward(self.heads, &tape.qkv, &mut tape.probabilities, &mut tape.attended);
        linear::forward_share(&tape.attended, at(&p.attention_out.weight), self.width, &mut tape.middle);
        tensor.sum(&mut tape.middle)?;
        linear::add_bias_and_residual(&mut tape.middle, at(&p.attention_out.bias), input);

        let (w, b) = (at(&p.norm_2.weight), at(&p.norm_2.bias));
        layer_norm::forward(&tape.middle, w, b, &mut tape.normed_2, &mut tape.moments_2);
        linear::forward(&tape.normed_2, at(&p.fc.weight), at(&p.fc.bias), &mut tape.fc);
        gelu::forward(&tape.fc, &mut tape.activated);
        linear::forward_share(&tape.activated, at(&p.mlp_out.weight), self.width, output);
        tensor.sum(output)?;
        linear::add_bias_and_residual(output, at(&p.mlp_out.bias), &tape.middle);
        Ok(())
    }

    /// Turns `gradient`, in place, from that of the output into that of the input.
    pub(crate) fn backward_input<R: Real>(
        &self,
        values: &[R],
        input: &[R],
        gradient: &mut [R],
        tape: &mut BlockTape<R>,
        tensor: &mut Group,
    ) -> Result<()> {
        let at = |place: &std::ops::Range<usize>| &values[place.clone()];
        let p = self.places;

        tape.d_output.copy_from_slice(gradient);
        linear::backward_input(gradient, at(&p.mlp_out.weight), self.width, &mut tape.d_fc);
        gelu::backward_input(&tape.fc, &mut tape.d_fc);
        linear::backward_input(&tape.d_fc, at(&p.fc.weight), p.fc.bias.len(), &mut tape.d_normed_2);
        tensor.sum(&mut tape.d_normed_2)?;
        let w = at(&p.norm_2.weight);
        layer_norm::backward_input(&tape.d_normed_2, &tape.middle, w, &tape.moments_2, gradient);

        tape.d_middle.copy_from_slice(gradient);
        linear::backward_input(gradient, at(&p.attention_out.weight), self.width, &mut tape.d_attended);
        let (qkv, probabilities) = (&tape.qkv, &tape.probabilities);
        attention::backward_input(self.heads, qkv, probabilities, &tape.d_attended, &mut tape.d_qkv);
        linear::backward_input(&tape.d_qkv, at(&p.qkv.weight), p.qkv.bias.len(), &mut tape.d_normed_1);
        tensor.sum(&mut tape.d_normed_1)?;
        let w = at(&p.norm_1.weight);
        layer_norm::backward_input(&tape.d_normed_1, input, w, &tape.moments_1, gradient);
        Ok(())
    }

    /// Adds to the arena of gradients what [`Block::backward_input`] left to do; needs no other rank.
    pub(crate) fn backward_weight<R: Real>(&self, input: &[R], gradients: &mut [R], tape: &BlockTape<R>) {
        let p = self.places;
        let (dw, db) = p.mlp_out.of(gradients);
        linear::backward_weight(&tape.activated, &tape.d_output, dw, db);
        let (dw, db) = p.fc.of(gradients);
        linear::backward_weight(&tape.normed_2, &tape.d_fc, dw, db);
        let (dw, db) = p.norm_2.of(gradients);
        layer_norm::backward_weight(&tape.d_normed_2, &tape.middle, &tape.moments_2, dw, db);
        let (dw, db) = p.attention_out.of(gradients);
        linear::backward_weight(&tape.attended, &tape.d_middle, dw, db);
        let (dw, db) = p.qkv.of(gradients);
        linear::backward_weight(&tape.normed_1, &tape.d_qkv, dw, db);
        let (dw, db) = p.norm_1.of(gradients);
        layer_norm::backward_weight(&tape.d_normed_1, input, &tape.moments_1, dw, db);
    }
}
