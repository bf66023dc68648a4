//! libfabric, loaded at run time: how its structures lie in memory, how it is found, and its objects.
//!
//! The library exports about ten functions; all else is called through tables of functions that its objects point to.
//! What it calls `FABRIC_1.3` is asked for: what those functions take and return is what libfabric 1.17 declares, and
//! later versions have it, too, at the beginning of what they have added to. `layout.rs` holds it, and its test compares
//! it with the headers of whatever version is installed.

mod layout;
mod library;
mod objects;

pub(crate) use layout::Context;
pub(crate) use library::{Fault, Info, Libfabric, Wanted};
pub(crate) use objects::{Completion, Port, Registration};
