//! The arithmetic of one rank: pieces of the network on plain row-major slices, each with its forward
//! function and its backward split in two halves, by input and by weight.
//!
//! | piece        | forward                    | by input                | by weight            |
//! | ------------ | -------------------------- | ----------------------- | -------------------- |
//! | `linear`     | `y = x W + b`              | `dx = dy Wᵀ`            | `dW += xᵀ dy`, `db`  |
//! | `layer_norm` | `y = w x̂ + b`              | `dx += ..`              | `dw += dy x̂`, `db`   |
//! | `gelu`       | `y = x σ(2u(x))`           | `dx = dy gelu'(x)`      |                      |
//! | `attention`  | `softmax(q kᵀ/√h) v`       | `dq, dk, dv`            |                      |
//! | `embedding`  | rows of a table            |                         | scatter-add          |
//! | `loss`       | cross-entropy over shards  | softmax minus one-hot   |                      |
//!
//! Everything is generic over [`Real`], so that the very code that trains in f32 is checked in f64 against
//! central differences. Matrix sizes are in elements; `n` is always rows (tokens), `d` the model's width.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod gelu;
pub(crate) mod lanes;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod matrix;
mod real;

pub(crate) use real::Real;

#[cfg(test)]
pub(crate) mod tests;
