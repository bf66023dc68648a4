//! Codes of element types and operators. Their values are fixed for good.

use std::ffi::c_int;

use kolo_core::{Element, Error, ReduceOp, Result};

/// The type of elements.
#[repr(C)]
#[allow(non_camel_case_types, reason = "the names of C")]
pub enum Dtype {
    /// double
    KOLO_F64 = 0,
    /// float
    KOLO_F32 = 1,
    /// IEEE 754 half precision, 2 bytes
    KOLO_F16 = 2,
    /// The upper half of a float, 2 bytes
    KOLO_BF16 = 3,
    /// OCP 8-bit float: 4 exponent, 3 mantissa bits, no infinities
    KOLO_F8E4M3 = 4,
    /// OCP 8-bit float: 5 exponent, 2 mantissa bits
    KOLO_F8E5M2 = 5,
    /// int8_t
    KOLO_I8 = 6,
    /// int16_t
    KOLO_I16 = 7,
    /// int32_t
    KOLO_I32 = 8,
    /// int64_t
    KOLO_I64 = 9,
    /// uint8_t
    KOLO_U8 = 10,
    /// uint16_t
    KOLO_U16 = 11,
    /// uint32_t
    KOLO_U32 = 12,
    /// uint64_t
    KOLO_U64 = 13,
}

/// How a reduction combines elements. Integers wrap; the least and the greatest of floats are NaN where any
/// input is; F16, BF16 and the 8-bit floats are combined in float, the latter saturate.
#[repr(C)]
#[allow(non_camel_case_types, reason = "the names of C")]
pub enum Op {
    /// a + b
    KOLO_SUM = 0,
    /// a * b
    KOLO_PROD = 1,
    /// The smaller
    KOLO_MIN = 2,
    /// The larger
    KOLO_MAX = 3,
    /// The sum over the number of ranks; of integers rounded toward zero
    KOLO_AVERAGE = 4,
    /// a & b; integers only
    KOLO_AND = 6,
    /// a | b; integers only
    KOLO_OR = 7,
    /// a ^ b; integers only
    KOLO_XOR = 8,
}

/// What C passes where the header says `enum kolo_dtype`: any number.
pub(crate) type DtypeCode = c_int;
/// What C passes where the header says `enum kolo_op`: any number.
pub(crate) type OpCode = c_int;

/// Runs an expression with `$T` standing for the Rust type of a code.
macro_rules! with_element {
    ($code:expr, $T:ident => $value:expr) => {
        $crate::types::with_element!(@ $code, $T => $value;
            KOLO_F64 f64, KOLO_F32 f32, KOLO_F16 kolo_core::f16, KOLO_BF16 kolo_core::bf16,
            KOLO_F8E4M3 kolo_core::F8E4M3, KOLO_F8E5M2 kolo_core::F8E5M2,
            KOLO_I8 i8, KOLO_I16 i16, KOLO_I32 i32, KOLO_I64 i64,
            KOLO_U8 u8, KOLO_U16 u16, KOLO_U32 u32, KOLO_U64 u64)
    };
    (@ $code:expr, $T:ident => $value:expr; $($name:ident $rust:ty),*) => {
        match $code {
            $(code if code == $crate::types::Dtype::$name as i32 => {
                type $T = $rust;
                $value
            })*
            code => Err(kolo_core::Error::usage(format!("{code} is no enum kolo_dtype"))),
        }
    };
}
pub(crate) use with_element;

/// The operator of a code.
#[inline]
pub(crate) fn operator<T: Element>(code: OpCode) -> Result<ReduceOp<T>> {
    macro_rules! of_code {
        ($($name:ident $op:ident),*) => {
            match code {
                $(code if code == Op::$name as i32 => Ok(ReduceOp::$op),)*
                code => Err(unknown(code)),
            }
        };
    }
    of_code!(
        KOLO_SUM Sum, KOLO_PROD Prod, KOLO_MIN Min, KOLO_MAX Max, KOLO_AVERAGE Average,
        KOLO_AND BitAnd, KOLO_OR BitOr, KOLO_XOR BitXor
    )
}

#[cold]
fn unknown(code: OpCode) -> Error {
    Error::usage(format!("{code} is no enum kolo_op"))
}
