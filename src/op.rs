//! How reductions combine elements.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::dtype::{Dtype, Element};
use crate::error::Error;

/// How a reduction combines the ranks' elements.
///
/// Integers wrap on overflow. `Min` and `Max` of floats are NaN where any input is. Narrow floats
/// (f16, bf16, fp8) are combined in f32; fp8 saturates. `Average` of integers rounds toward zero.
#[derive(Clone)]
pub enum ReduceOp<T: Element> {
    /// a + b
    Sum,
    /// a × b
    Prod,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// The sum divided by the number of ranks.
    Average,
    /// Each rank's contribution times its own factor, then summed.
    PreMul(T),
    /// Bitwise and; integers only.
    BitAnd,
    /// Bitwise or; integers only.
    BitOr,
    /// Bitwise exclusive or; integers only.
    BitXor,
    /// A function of the caller; see [`ReduceOp::user`].
    User(UserOp<T>),
}

/// A reduction that the caller wrote.
#[derive(Clone)]
pub struct UserOp<T: Element> {
    /// Whether `f(a, b) == f(b, a)`; if not, only plans that keep the rank order are used.
    pub commutes: bool,
    /// Combines the contribution of lower ranks with that of higher ones.
    pub combine: Arc<dyn Fn(T, T) -> T + Send + Sync>,
}

impl<T: Element> ReduceOp<T> {
    /// A reduction by `combine`, which must be associative and the same on all ranks. If it does not
    /// commute, say so: then contributions are combined in rank order.
    pub fn user(commutes: bool, combine: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self {
        Self::User(UserOp { commutes, combine: Arc::new(combine) })
    }

    /// The operator without its parameters.
    #[inline]
    pub fn kind(&self) -> OpKind {
        match self {
            Self::Sum => OpKind::Sum,
            Self::Prod => OpKind::Prod,
            Self::Min => OpKind::Min,
            Self::Max => OpKind::Max,
            Self::Average => OpKind::Average,
            Self::PreMul(_) => OpKind::PreMul,
            Self::BitAnd => OpKind::BitAnd,
            Self::BitOr => OpKind::BitOr,
            Self::BitXor => OpKind::BitXor,
            Self::User(_) => OpKind::User,
        }
    }
}

impl<T: Element> fmt::Debug for ReduceOp<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())
    }
}

/// A reduction operator without its parameters: what signatures and reports carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// See [`ReduceOp::Sum`].
    Sum,
    /// See [`ReduceOp::Prod`].
    Prod,
    /// See [`ReduceOp::Min`].
    Min,
    /// See [`ReduceOp::Max`].
    Max,
    /// See [`ReduceOp::Average`].
    Average,
    /// See [`ReduceOp::PreMul`].
    PreMul,
    /// See [`ReduceOp::BitAnd`].
    BitAnd,
    /// See [`ReduceOp::BitOr`].
    BitOr,
    /// See [`ReduceOp::BitXor`].
    BitXor,
    /// See [`ReduceOp::user`].
    User,
}

impl OpKind {
    /// Every operator.
    pub const ALL: [Self; 10] = [
        Self::Sum,
        Self::Prod,
        Self::Min,
        Self::Max,
        Self::Average,
        Self::PreMul,
        Self::BitAnd,
        Self::BitOr,
        Self::BitXor,
        Self::User,
    ];

    /// Whether elements of that type can be combined so.
    #[inline]
    pub const fn combines(self, dtype: Dtype) -> bool {
        !(dtype.is_float() && matches!(self, Self::BitAnd | Self::BitOr | Self::BitXor))
    }

    /// The name that the command line, reports and errors use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Prod => "prod",
            Self::Min => "min",
            Self::Max => "max",
            Self::Average => "average",
            Self::PreMul => "premul",
            Self::BitAnd => "and",
            Self::BitOr => "or",
            Self::BitXor => "xor",
            Self::User => "user",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OpKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|op| op.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("unknown operator `{name}`; known are {known}"))
        })
    }
}
