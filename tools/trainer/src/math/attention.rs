//! Causal attention, head by head, with the probabilities kept for the backward half.
//!
//! `qkv` holds per token the queries, keys and values of all local heads: `[n, 3, heads, size]`. Queries
//! are taken in blocks of rows; a block sees the keys up to its last row, so that most of the masked upper
//! triangle is never computed:
//!
//! ```text
//!          keys 0 .. end
//! block 0  [x x 0 0]            products run over the columns 0 .. end of the block;
//! block 1  [x x x x x x 0 0]    inside its last square the softmax writes the zeros
//! ```

use super::matrix::{Matrix, MatrixMut};
use super::{Real, lanes};

/// Rows of queries per block.
const BLOCK: usize = 64;

/// Sizes of one call: `n = sequences * length` tokens.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Sequences in the batch.
    pub(crate) sequences: usize,
    /// Tokens per sequence.
    pub(crate) length: usize,
    /// Heads on this rank.
    pub(crate) count: usize,
    /// Elements per head.
    pub(crate) size: usize,
}

impl Heads {
    /// Elements of the probabilities: one square per sequence and head.
    pub(crate) fn probabilities(&self) -> usize {
        self.sequences * self.count * self.length * self.length
    }

    fn width(&self) -> usize {
        self.count * self.size
    }

    /// Of each (sequence, head): where its rows of q (of `qkv`), of the output, and its square begin.
    fn each(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.sequences * self.count).map(move |i| {
            let (sequence, head) = (i / self.count, i % self.count);
            let row = sequence * self.length * self.width();
            (3 * row + head * self.size, row + head * self.size, i * self.length * self.length)
        })
    }

    /// The blocks of query rows: (first row, rows, keys seen).
    fn blocks(self) -> impl DoubleEndedIterator<Item = (usize, usize, usize)> {
        (0..self.length.div_ceil(BLOCK)).map(move |i| {
            let end = ((i + 1) * BLOCK).min(self.length);
            (i * BLOCK, end - i * BLOCK, end)
        })
    }

    fn scale<R: Real>(self) -> R {
        R::of(1.0 / (self.size as f64).sqrt())
    }
}

/// `out [n, width] = softmax(q kᵀ / √size) v`.
pub(crate) fn forward<R: Real>(heads: Heads, qkv: &[R], probabilities: &mut [R], out: &mut [R]) {
    let Heads { length, size, .. } = heads;
    let (width, stride) = (heads.width(), 3 * heads.width());
    for (q, o, p) in heads.each() {
        let (k, v) = (q + width, q + 2 * width);
        let square = &mut probabilities[p..][..length * length];
        for (first, rows, seen) in heads.blocks() {
            let block = &mut square[first * length..];
            R::product(
                heads.scale(),
                Matrix::strided(&qkv[q + first * stride..], rows, size, stride),
                Matrix::strided(&qkv[k..], seen, size, stride).transposed(),
                R::ZERO,
                MatrixMut::strided(block, rows, seen, length),
            );
            softmax(block, first, rows, seen, length);
            R::product(
                R::ONE,
                Matrix::strided(block, rows, seen, length),
                Matrix::strided(&qkv[v..], seen, size, stride),
                R::ZERO,
                MatrixMut::strided(&mut out[o + first * width..], rows, size, width),
            );
        }
    }
}

/// Row `i` of the block becomes the softmax of its first `first + i + 1` elements, zeros after them.
fn softmax<R: Real>(block: &mut [R], first: usize, rows: usize, seen: usize, stride: usize) {
    lanes::vectorised(
        #[inline(always)]
        || {
            for (i, row) in block.chunks_mut(stride).take(rows).enumerate() {
                let (row, masked) = row[..seen].split_at_mut(first + i + 1);
                let max = lanes::max(row);
                for x in row.iter_mut() {
                    *x = (*x - max).exp();
                }
                let scale = R::ONE / lanes::sum(row, |x| x);
                for x in row.iter_mut() {
                    *x *= scale;
                }
                masked.fill(R::ZERO);
            }
        },
    );
}

/// From the gradient of `out` to that of `qkv` (overwritten).
pub(crate) fn backward_input<R: Real>(
    heads: Heads,
    qkv: &[R],
    probabilities: &[R],
    d_out: &[R],
    d_qkv: &mut [R],
) {
    let Heads { length, size, .. } = heads;
    let (width, stride) = (heads.width(), 3 * heads.width());
    let mut scores = vec![R::ZERO; BLOCK.min(length) * length];
    for (q, o, p) in heads.each() {
        let (k, v) = (q + width, q + 2 * width);
        let square = &probabilities[p..][..length * length];
        // The last block sees every key: it overwrites dk and dv, the blocks before it add.
        let mut keep = R::ZERO;
        for (first, rows, seen) in heads.blocks().rev() {
            let block = &square[first * length..];
            let p = Matrix::strided(block, rows, seen, length);
            let d_o = Matrix::strided(&d_out[o + first * width..], rows, size, width);
            let values = Matrix::strided(&qkv[v..], seen, size, stride);
            let d_v = MatrixMut::strided(&mut d_qkv[v..], seen, size, stride);
            R::product(R::ONE, p.transposed(), d_o, keep, d_v);
            let d_s = MatrixMut::strided(&mut scores, rows, seen, length);
            R::product(R::ONE, d_o, values.transposed(), R::ZERO, d_s);
            softmax_backward(block, &mut scores, rows, seen, length);
            let d_s = Matrix::strided(&scores, rows, seen, length);
            let queries = Matrix::strided(&qkv[q + first * stride..], rows, size, stride);
            let keys = Matrix::strided(&qkv[k..], seen, size, stride);
            let d_k = MatrixMut::strided(&mut d_qkv[k..], seen, size, stride);
            R::product(heads.scale(), d_s.transposed(), queries, keep, d_k);
            let d_q = MatrixMut::strided(&mut d_qkv[q + first * stride..], rows, size, stride);
            R::product(heads.scale(), d_s, keys, R::ZERO, d_q);
            keep = R::ONE;
        }
    }
}

/// `d = p (d - sum(d p))`, row by row: from the gradient of the probabilities to that of the scores.
fn softmax_backward<R: Real>(p: &[R], d: &mut [R], rows: usize, seen: usize, stride: usize) {
    lanes::vectorised(
        #[inline(always)]
        || {
            for (p, d) in p.chunks(stride).zip(d.chunks_mut(stride)).take(rows) {
                let (p, d) = (&p[..seen], &mut d[..seen]);
                let mean = lanes::sum2(p, d, |p, d| p * d);
                for (d, &p) in d.iter_mut().zip(p) {
                    *d = p * (*d - mean);
                }
            }
        },
    );
}
