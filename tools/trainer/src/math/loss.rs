//! Cross-entropy over a vocabulary that is split across ranks (Megatron-LM, Shoeybi et al. 2019): three
//! local passes with two small all-reduces between them, never the whole row of logits in one place.
//!
//! | pass         | computes per token                            | then, over the group |
//! | ------------ | --------------------------------------------- | -------------------- |
//! | `maxima`     | largest local logit                           | all-reduce, max      |
//! | `exponentials` | sum of `exp(x - max)`, the target's `x - max` | all-reduce, sum    |
//! | `finish`     | the loss; logits become their own gradient    |                      |

use super::embedding::local_row;
use super::{Real, lanes};

/// The largest of each row of `logits` (rows of `vocabulary` elements).
pub(crate) fn maxima<R: Real>(logits: &[R], vocabulary: usize, maxima: &mut [R]) {
    lanes::vectorised(
        #[inline(always)]
        || {
            for (row, max) in logits.chunks_exact(vocabulary).zip(maxima) {
                *max = lanes::max(row);
            }
        },
    );
}

/// Replaces each logit by `exp(logit - max)`; `sums` receives each row's sum, `targets_at` the target's
/// shifted logit, or zero where another rank holds the target. This rank holds the tokens from `first` on.
pub(crate) fn exponentials<R: Real>(
    logits: &mut [R],
    vocabulary: usize,
    first: usize,
    targets: &[u8],
    maxima: &[R],
    sums: &mut [R],
    targets_at: &mut [R],
) {
    let rows = logits.chunks_exact_mut(vocabulary);
    let outputs = sums.iter_mut().zip(targets_at);
    lanes::vectorised(
        #[inline(always)]
        || {
            for (((row, &target), &max), (sum, target_at)) in rows.zip(targets).zip(maxima).zip(outputs) {
                *target_at = local_row(target, vocabulary, first).map_or(R::ZERO, |column| row[column] - max);
                for x in row.iter_mut() {
                    *x = (*x - max).exp();
                }
                *sum = lanes::sum(row, |x| x);
            }
        },
    );
}

/// The sum of the tokens' losses, `ln(sum) - target`, in f64; each row of exponentials becomes the
/// gradient of `weight * loss` with respect to the logits: `weight (softmax - one-hot)`.
pub(crate) fn finish<R: Real>(
    logits: &mut [R],
    vocabulary: usize,
    first: usize,
    targets: &[u8],
    sums: &[R],
    targets_at: &[R],
    weight: R,
) -> f64 {
    let rows = logits.chunks_exact_mut(vocabulary);
    lanes::vectorised(
        #[inline(always)]
        || {
            let mut loss = 0.0;
            for (((row, &target), &sum), &target_at) in rows.zip(targets).zip(sums).zip(targets_at) {
                loss += sum.wide().ln() - target_at.wide();
                let scale = weight / sum;
                for x in row.iter_mut() {
                    *x *= scale;
                }
                if let Some(column) = local_row(target, vocabulary, first) {
                    row[column] += -weight;
                }
            }
            loss
        },
    )
}
