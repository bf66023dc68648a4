//! Which tensors a rank holds, where they lie in its arena, and which part of the whole tensor they are.
//!
//! Names and shapes are those of Hugging Face's `GPT2LMHeadModel`; weights are `[inputs, outputs]`. Order in
//! the arena is that of the forward pass, so gradients become complete from its end to its beginning (the
//! tied token table, which the head and the embedding share, comes first and completes last).
//!
//! | tensor                  | whole shape   | divided over tensor-parallel ranks |
//! | ----------------------- | ------------- | ---------------------------------- |
//! | `wte.weight`            | `[256, d]`    | by rows (vocabulary)               |
//! | `wpe.weight`            | `[T, d]`      | no                                 |
//! | `ln_*.weight, .bias`    | `[d]`         | no                                 |
//! | `attn.c_attn.weight`    | `[d, 3 d]`    | by columns in each of q, k, v      |
//! | `attn.c_attn.bias`      | `[3 d]`       | likewise                           |
//! | `attn.c_proj.weight`    | `[d, d]`      | by rows                            |
//! | `mlp.c_fc.weight, .bias`| `[d, 4 d]`    | by columns                         |
//! | `mlp.c_proj.weight`     | `[4 d, d]`    | by rows                            |
//! | `c_proj.bias`           | `[d]`         | no (added after the sum)           |

use std::ops::Range;

use super::arena::{ALIGNMENT, Arena};
use super::{Shape, Share, VOCABULARY};
use crate::math::Real;
use crate::random::Stream;

/// How a tensor is divided over tensor-parallel ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Split {
    /// Every rank holds all of it.
    Whole,
    /// Contiguous rows.
    Rows,
    /// The tensor is this many matrices side by side, each divided by contiguous columns.
    Columns(usize),
}

/// A tensor's first values.
#[derive(Clone, Copy, Debug)]
enum Initial {
    Zero,
    One,
    /// Normal with this standard deviation.
    Normal(f64),
}

/// One tensor of the rank's share.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// Its name in a checkpoint.
    pub(crate) name: String,
    /// The whole tensor's rows (1 for a vector) and columns.
    pub(crate) whole: [usize; 2],
    /// Where this rank's part lies in the arena, row-major.
    pub(crate) place: Range<usize>,
    /// Whether this is the last stage's second copy of the tied token table.
    pub(crate) is_copy: bool,
    split: Split,
    initial: Initial,
    tensor: (usize, usize),
}

impl Tensor {
    /// Whether norms and checkpoints take this part from this rank: a replicated tensor counts on the
    /// first rank only.
    pub(crate) fn counts(&self) -> bool {
        !self.is_copy && (self.split != Split::Whole || self.tensor.0 == 0)
    }

    /// Whether the whole tensor has one dimension only.
    pub(crate) fn is_vector(&self) -> bool {
        self.whole[0] == 1
    }

    /// This rank's rows and columns.
    fn local(&self) -> [usize; 2] {
        let [rows, columns] = self.whole;
        match self.split {
            Split::Whole => [rows, columns],
            Split::Rows => [rows / self.tensor.1, columns],
            Split::Columns(_) => [rows, columns / self.tensor.1],
        }
    }

    /// The indices into the whole tensor of this rank's elements, in their order.
    pub(crate) fn whole_indices(&self) -> impl Iterator<Item = usize> {
        let (rank, _) = self.tensor;
        let [rows, columns] = self.local();
        let (first_row, parts) = match self.split {
            Split::Whole => (0, 1),
            Split::Rows => (rank * rows, 1),
            Split::Columns(parts) => (0, parts),
        };
        let first_column = if matches!(self.split, Split::Columns(_)) { rank * columns / parts } else { 0 };
        let (part, whole_part, whole_columns) = (columns / parts, self.whole[1] / parts, self.whole[1]);
        (0..rows * columns).map(move |i| {
            let (row, column) = (i / columns, i % columns);
            let whole_column = column / part * whole_part + first_column + column % part;
            (first_row + row) * whole_columns + whole_column
        })
    }
}

/// A weight and its bias: of a linear layer or of a norm.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Range<usize>,
}

impl Affine {
    /// Both parts of an arena; the bias lies behind the weight.
    pub(crate) fn of<'a, R>(&self, arena: &'a mut [R]) -> (&'a mut [R], &'a mut [R]) {
        let (before, after) = arena.split_at_mut(self.bias.start);
        (&mut before[self.weight.clone()], &mut after[..self.bias.len()])
    }
}

/// Where one layer's tensors lie.
#[derive(Debug)]
pub(crate) struct BlockPlaces {
    pub(crate) norm_1: Affine,
    pub(crate) qkv: Affine,
    pub(crate) attention_out: Affine,
    pub(crate) norm_2: Affine,
    pub(crate) fc: Affine,
    pub(crate) mlp_out: Affine,
}

/// Where the tensors of a rank's share lie in its arena.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The token table, on the first and on the last stage.
    pub(crate) tokens: Option<Range<usize>>,
    /// The position table, on the first stage.
    pub(crate) positions: Option<Range<usize>>,
    pub(crate) blocks: Vec<BlockPlaces>,
    /// The final norm, on the last stage.
    pub(crate) norm: Option<Affine>,
}

/// All tensors of a rank's share.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) places: Places,
    /// Elements of the arena, padding included.
    pub(crate) len: usize,
}

impl Table {
    /// A pure function of the network and the share: any rank can compute any other's.
    pub(crate) fn new(shape: &Shape, share: &Share) -> Self {
        let mut table = Self { tensors: Vec::new(), places: Places::default(), len: 0 };
        let Shape { layers, width, context, .. } = *shape;
        // GPT-2: 0.02, and less for what adds to the residual stream, by the number of additions.
        let normal = Initial::Normal(0.02);
        let residual = Initial::Normal(0.02 / (2.0 * layers as f64).sqrt());
        let tensor = share.tensor;
        if share.is_first() || share.is_last() {
            let place = table.push("wte.weight", [VOCABULARY, width], Split::Rows, normal, tensor);
            table.tensors[0].is_copy = !share.is_first();
            table.places.tokens = Some(place);
        }
        if share.is_first() {
            let place = table.push("wpe.weight", [context, width], Split::Whole, normal, tensor);
            table.places.positions = Some(place);
        }
        let per_stage = layers / share.stage.1;
        for layer in share.stage.0 * per_stage..(share.stage.0 + 1) * per_stage {
            let mut linear = |name: &str, whole: [usize; 2], weights: Split, biases: Split, initial| Affine {
                weight: table.push(&format!("h.{layer}.{name}.weight"), whole, weights, initial, tensor),
                bias: table.push(
                    &format!("h.{layer}.{name}.bias"),
                    [1, whole[1]],
                    biases,
                    Initial::Zero,
                    tensor,
                ),
            };
            let norm_1 = linear("ln_1", [1, width], Split::Whole, Split::Whole, Initial::One);
            let (three, one) = (Split::Columns(3), Split::Columns(1));
            let qkv = linear("attn.c_attn", [width, 3 * width], three, three, normal);
            let attention_out = linear("attn.c_proj", [width, width], Split::Rows, Split::Whole, residual);
            let norm_2 = linear("ln_2", [1, width], Split::Whole, Split::Whole, Initial::One);
            let fc = linear("mlp.c_fc", [width, 4 * width], one, one, normal);
            let mlp_out = linear("mlp.c_proj", [4 * width, width], Split::Rows, Split::Whole, residual);
            table.places.blocks.push(BlockPlaces { norm_1, qkv, attention_out, norm_2, fc, mlp_out });
        }
        if share.is_last() {
            let weight = table.push("ln_f.weight", [1, width], Split::Whole, Initial::One, tensor);
            let bias = table.push("ln_f.bias", [1, width], Split::Whole, Initial::Zero, tensor);
            table.places.norm = Some(Affine { weight, bias });
        }
        table
    }

    fn push(
        &mut self,
        name: &str,
        whole: [usize; 2],
        split: Split,
        initial: Initial,
        tensor: (usize, usize),
    ) -> Range<usize> {
        let name = format!("transformer.{name}");
        let mut entry = Tensor { name, whole, place: 0..0, is_copy: false, split, initial, tensor };
        let [rows, columns] = entry.local();
        entry.place = self.len..self.len + rows * columns;
        self.len = entry.place.end.next_multiple_of(ALIGNMENT);
        let place = entry.place.clone();
        self.tensors.push(entry);
        place
    }

    /// The first values: functions of (seed, name, index in the whole tensor), so of no layout.
    pub(crate) fn initial<R: Real>(&self, seed: u64) -> Arena<R> {
        let mut arena = Arena::zeros(self.len);
        for tensor in &self.tensors {
            let values = &mut arena[tensor.place.clone()];
            match tensor.initial {
                Initial::Zero => {}
                Initial::One => values.fill(R::ONE),
                Initial::Normal(deviation) => {
                    let stream = Stream::new(seed, &tensor.name);
                    for (value, index) in values.iter_mut().zip(tensor.whole_indices()) {
                        *value = R::of(deviation * stream.normal(index as u64));
                    }
                }
            }
        }
        arena
    }
}
