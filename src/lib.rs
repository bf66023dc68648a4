//! kolo: collective communication for ranks on any machine.

pub mod algorithm;
pub mod bootstrap;
mod communicator;
pub mod config;
pub mod dtype;
pub mod engine;
pub mod error;
pub mod health;
pub mod kernel;
pub mod memory;
pub mod op;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod parsers;
pub mod plan;
mod sys;
pub mod topology;
pub mod transport;

/// Whether calls are compared, peers and aborts looked for, and calls recorded. Only a benchmark of what that costs is built
/// without: `RUSTFLAGS="--cfg kolo_unchecked" ffi/install PREFIX`.
pub(crate) const CHECKED: bool = !cfg!(kolo_unchecked);

pub use communicator::{Abort, Awaited, Communicator, Explanation, Scope, Work};
pub use dtype::{Dtype, Element, F8E4M3, F8E5M2, bf16, f16};
pub use error::{Error, Kind, Result};
pub use memory::Buffer;
pub use op::{OpKind, ReduceOp};
pub use plan::CollectiveKind;
