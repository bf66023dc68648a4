//! The two scalars of the trainer: f32 to train, f64 to check the gradients.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

use super::matrix::Product;

/// What the network's arithmetic needs of a scalar.
pub(crate) trait Real:
    kolo::Element
    + Product
    + Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
    + Send
    + Sync
    + 'static
{
    /// The nearest value.
    fn of(value: f64) -> Self;
    /// Exact.
    fn wide(self) -> f64;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `e^self`; in f32 without branches, so that loops over it become vector code.
    fn exp(self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    /// `2^n e^r` with `n = round(x / ln 2)`, `|r| <= ln 2 / 2` and the Taylor polynomial of degree 7:
    /// within 2 units in the last place. Arguments are clamped to the range whose results are normal numbers.
    #[inline(always)]
    fn exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
        const LN2_HIGH: f32 = 0.693_359_4; // few bits, so that n * LN2_HIGH is exact
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * LN2_HIGH) - n * LN2_LOW;
        let p = 1.0 / 5040.0;
        let p = p * r + 1.0 / 720.0;
        let p = p * r + 1.0 / 120.0;
        let p = p * r + 1.0 / 24.0;
        let p = p * r + 1.0 / 6.0;
        let p = p * r + 0.5;
        let p = (p * r * r + r) + 1.0;
        // 2^n by adding n to the exponent's bits; the bits of ROUND fall out at the top.
        f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 / 10_000.0;
            let (got, want) = (f64::from(Real::exp(x)), f64::from(x).exp());
            worst = worst.max((got - want).abs() / (want * f64::from(f32::EPSILON)));
        }
        assert!(worst < 2.0, "{worst} ulp");
        assert_eq!(Real::exp(0.0f32), 1.0);
        assert!(Real::exp(-1e30f32) < 1e-37);
        assert!(Real::exp(1e30f32).is_finite());
    }
}
