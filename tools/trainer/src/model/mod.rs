//! The network on one rank: which parameters it holds, and how activations and gradients pass through its
//! share of the layers.

pub(crate) mod arena;
pub(crate) mod block;
pub(crate) mod head;
pub(crate) mod parameters;
pub(crate) mod stage;

#[cfg(test)]
mod tests;

/// Tokens are bytes.
pub(crate) const VOCABULARY: usize = 256;

/// The byte that begins every text: it occurs in none, since a file that holds it is no text.
pub(crate) const BEGIN: u8 = 0;

/// The sizes of the whole network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Decoder layers.
    pub(crate) layers: usize,
    /// Elements of the residual stream.
    pub(crate) width: usize,
    /// Attention heads; they divide the width.
    pub(crate) heads: usize,
    /// Tokens in a sequence.
    pub(crate) context: usize,
}

/// The share of the network that a rank holds: a slice of every layer's heads and columns (tensor
/// parallel), of a contiguous range of the layers (pipeline parallel).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Place among the tensor-parallel ranks, and their number.
    pub(crate) tensor: (usize, usize),
    /// Place among the pipeline's stages, and their number.
    pub(crate) stage: (usize, usize),
}

impl Share {
    /// The whole network.
    pub(crate) const WHOLE: Self = Self { tensor: (0, 1), stage: (0, 1) };

    /// Whether this is the stage of the embedding.
    pub(crate) fn is_first(&self) -> bool {
        self.stage.0 == 0
    }

    /// Whether this is the stage of the head and the loss.
    pub(crate) fn is_last(&self) -> bool {
        self.stage.0 + 1 == self.stage.1
    }
}
