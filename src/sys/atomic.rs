//! The atomics of the protocols that a model checker runs: `tests/models.rs` compiles the same files with
//! loom's in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
