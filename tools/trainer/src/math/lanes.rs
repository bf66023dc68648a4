//! Loops that become vector code: run-time choice of the instruction set, and sums in a fixed tree.

use super::Real;

/// Partial sums kept side by side: one AVX-512 register of f32.
const LANES: usize = 16;

/// Rows that are added one after the other before their sum joins the total ([`add_rows`]).
const ROWS_PER_SUM: usize = 32;

/// Runs a loop compiled for the best instruction set of this processor. `work` and all that it calls must
/// be inlined (`#[inline(always)]`) to profit. No fused multiply-adds are formed: the bits are the same
/// on every processor.
#[inline(always)]
pub(crate) fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(work)
}

/// Adds 16 lanes pairwise.
#[inline(always)]
fn fold<R: Real>(mut lanes: [R; LANES]) -> R {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `sum of f(x[i])`: lanes side by side, then a tree; the error grows with the length over 16.
#[inline(always)]
pub(crate) fn sum<R: Real>(x: &[R], f: impl Fn(R) -> R) -> R {
    let mut lanes = [R::ZERO; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f(x);
    }
    fold(lanes)
}

/// `sum of f(x[i], y[i])`, as [`sum`].
#[inline(always)]
pub(crate) fn sum2<R: Real>(x: &[R], y: &[R], f: impl Fn(R, R) -> R) -> R {
    let mut lanes = [R::ZERO; LANES];
    let (mut xs, mut ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for (x, y) in (&mut xs).zip(&mut ys) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += f(x, y);
        }
    }
    for ((lane, &x), &y) in lanes.iter_mut().zip(xs.remainder()).zip(ys.remainder()) {
        *lane += f(x, y);
    }
    fold(lanes)
}

/// The largest element; `x` is not empty.
#[inline(always)]
pub(crate) fn max<R: Real>(x: &[R]) -> R {
    let larger = |a: R, b: R| if b > a { b } else { a };
    let mut lanes = [x[0]; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    let rest = chunks.remainder().iter().fold(lanes[0], |a, &b| larger(a, b));
    lanes.iter().fold(rest, |a, &b| larger(a, b))
}

/// Sum of squares in f64, for norms.
pub(crate) fn squares<R: Real>(x: &[R]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let mut lanes = [0.0f64; LANES];
            for chunk in x.chunks(LANES) {
                for (lane, &x) in lanes.iter_mut().zip(chunk) {
                    *lane += x.wide() * x.wide();
                }
            }
            fold(lanes)
        },
    )
}

/// `total += sum over rows r of f(r)`, in blocks of [`ROWS_PER_SUM`] rows, so that rounding errors grow
/// with the number of blocks only. `f` adds its row to the slice it is given.
#[inline(always)]
pub(crate) fn add_rows<R: Real>(rows: usize, total: &mut [R], mut f: impl FnMut(usize, &mut [R])) {
    let mut partial = vec![R::ZERO; total.len()];
    for start in (0..rows).step_by(ROWS_PER_SUM) {
        partial.fill(R::ZERO);
        for row in start..(start + ROWS_PER_SUM).min(rows) {
            f(row, &mut partial);
        }
        for (total, &partial) in total.iter_mut().zip(&partial) {
            *total += partial;
        }
    }
}

/// `y += x`.
#[inline]
pub(crate) fn add<R: Real>(y: &mut [R], x: &[R]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}
