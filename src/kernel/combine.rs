//! The operators, as types: a loop is compiled for each.

use super::number::Wide;

/// a ⊕ b.
pub(super) trait Combine<W> {
    fn combine(a: W, b: W) -> W;
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
