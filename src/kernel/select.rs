//! Which kernel serves an element type and an operator.

#[cfg(target_arch = "x86_64")]
use super::codes::CodeSum;
use super::combine::{And, Max, Min, Or, Prod, Sum, Xor};
use super::fold::{Copy, Fold, Prescale};
use super::variant::{Entries, Entry, Variant};
use crate::dtype::{Dtype, F8E4M3, F8E5M2, bf16, f16};
use crate::op::OpKind;

/// Runs an expression with `$N` standing for the Rust type of a dtype.
macro_rules! with_type {
    ($dtype:expr, $N:ident => $value:expr) => {
        with_type!($dtype, $N => $value;
            F64 f64, F32 f32, F16 f16, Bf16 bf16, F8E4M3 F8E4M3, F8E5M2 F8E5M2,
            I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
    ($dtype:expr, $N:ident => $value:expr; $($name:ident $rust:ty),*) => {
        match $dtype {$(
            Dtype::$name => {
                type $N = $rust;
                $value
            }
        )*}
    };
}

/// Wrapping sums and products of signed integers have the bits of unsigned ones: one loop for both.
macro_rules! with_signless_type {
    ($dtype:expr, $N:ident => $value:expr) => {
        with_type!($dtype, $N => $value;
            F64 f64, F32 f32, F16 f16, Bf16 bf16, F8E4M3 F8E4M3, F8E5M2 F8E5M2,
            I8 u8, I16 u16, I32 u32, I64 u64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
}

/// The kernel that combines without finishing; none where the operator is not for this type, or is the
/// caller's own.
pub(super) fn fold(variant: Variant, dtype: Dtype, op: OpKind) -> Option<Entries> {
    Some(match op {
        #[cfg(target_arch = "x86_64")]
        OpKind::Sum | OpKind::Average | OpKind::PreMul if dtype == Dtype::F8E4M3 => {
            variant.entries::<CodeSum<F8E4M3>>()
        }
        #[cfg(target_arch = "x86_64")]
        OpKind::Sum | OpKind::Average | OpKind::PreMul if dtype == Dtype::F8E5M2 => {
            variant.entries::<CodeSum<F8E5M2>>()
        }
        OpKind::Sum | OpKind::Average | OpKind::PreMul => {
            with_signless_type!(dtype, N => variant.entries::<Fold<N, Sum, false>>())
        }
        OpKind::Prod => with_signless_type!(dtype, N => variant.entries::<Fold<N, Prod, false>>()),
        OpKind::Min => with_type!(dtype, N => variant.entries::<Fold<N, Min, false>>()),
        OpKind::Max => with_type!(dtype, N => variant.entries::<Fold<N, Max, false>>()),
        OpKind::BitAnd if !dtype.is_float() => variant.entries::<Fold<u8, And, false>>(),
        OpKind::BitOr if !dtype.is_float() => variant.entries::<Fold<u8, Or, false>>(),
        OpKind::BitXor if !dtype.is_float() => variant.entries::<Fold<u8, Xor, false>>(),
        OpKind::BitAnd | OpKind::BitOr | OpKind::BitXor | OpKind::User => return None,
    })
}

/// The kernel that sums and divides by the number of ranks.
pub(super) fn average(variant: Variant, dtype: Dtype) -> Entries {
    with_type!(dtype, N => variant.entries::<Fold<N, Sum, true>>())
}

/// The kernel that multiplies by a factor.
pub(super) fn prescale(variant: Variant, dtype: Dtype) -> Entry {
    with_type!(dtype, N => variant.entry::<Prescale<N>>())
}

/// The kernel that copies one source.
pub(super) fn copy(variant: Variant) -> Entry {
    variant.entry::<Copy>()
}
