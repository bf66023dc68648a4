//! The operators, as types: a loop is compiled for each.

use super::number::Wide;
use super::variant::Isa;

/// a ⊕ b.
pub(super) trait Combine<W: Copy> {
    fn combine(a: W, b: W) -> W;

    /// The lanes of a chunk.
    ///
    /// # Safety
    /// The processor is of that kind.
    #[inline(always)]
    unsafe fn combine_all<I: Isa, const LANES: usize>(a: [W; LANES], b: [W; LANES]) -> [W; LANES] {
        each(a, b, Self::combine)
    }
}

/// Lane by lane.
#[inline(always)]
pub(super) fn each<W: Copy, const LANES: usize>(
    mut a: [W; LANES],
    b: [W; LANES],
    combine: impl Fn(W, W) -> W,
) -> [W; LANES] {
    for i in 0..LANES {
        a[i] = combine(a[i], b[i]);
    }
    a
}

/// The one source there is.
pub(super) struct First;

impl<W: Copy> Combine<W> for First {
    #[inline(always)]
    fn combine(a: W, _: W) -> W {
        a
    }
}

pub(super) struct Sum;
pub(super) struct Prod;
pub(super) struct Min;
pub(super) struct Max;
/// Bitwise operators do not care where an element ends: bytes suffice.
pub(super) struct And;
pub(super) struct Or;
pub(super) struct Xor;

macro_rules! combine {
    ($($operator:ident: $wide:ty, |$a:ident, $b:ident| $result:expr;)*) => {$(
        impl Combine<$wide> for $operator {
            #[inline(always)]
            fn combine($a: $wide, $b: $wide) -> $wide {
                $result
            }
        }
    )*};
}

combine! {
    And: u8, |a, b| a & b;
    Or: u8, |a, b| a | b;
    Xor: u8, |a, b| a ^ b;
}

macro_rules! arithmetic {
    ($($operator:ident: $method:ident;)*) => {$(
        impl<W: Wide> Combine<W> for $operator {
            #[inline(always)]
            fn combine(a: W, b: W) -> W {
                a.$method(b)
            }
        }
    )*};
}

arithmetic! { Sum: add; Prod: multiply; Min: smaller; Max: larger; }
