//! GELU in its tanh form (Hendrycks, Gimpel 2016), GPT-2's `gelu_new`:
//! `x/2 (1 + tanh u) = x σ(2u)` with `u = √(2/π) (x + 0.044715 x³)`: one exponential, one division.

use super::{Real, lanes};

const CUBIC: f64 = 0.044715;
const TWICE_ROOT: f64 = 1.595_769_121_605_730_7; // 2 √(2/π)

/// `σ(2u(x))`.
#[inline(always)]
fn gate<R: Real>(x: R) -> R {
    let twice_u = R::of(TWICE_ROOT) * (x + R::of(CUBIC) * x * x * x);
    R::ONE / (R::ONE + (-twice_u).exp())
}

/// `y = gelu(x)`.
pub(crate) fn forward<R: Real>(x: &[R], y: &mut [R]) {
    lanes::vectorised(
        #[inline(always)]
        || {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * gate(x);
            }
        },
    );
}

/// `d *= gelu'(x)`: turns the gradient of the output into that of the input, in place.
pub(crate) fn backward_input<R: Real>(x: &[R], d: &mut [R]) {
    lanes::vectorised(
        #[inline(always)]
        || {
            for (d, &x) in d.iter_mut().zip(x) {
                let gate = gate(x);
                let slope = R::of(TWICE_ROOT) * (R::ONE + R::of(3.0 * CUBIC) * x * x); // of 2u
                *d *= gate + x * gate * (R::ONE - gate) * slope;
            }
        },
    );
}
