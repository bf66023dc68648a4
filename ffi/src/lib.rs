//! The C ABI, thin: it checks what C cannot promise (null, alignment, lengths, overlap, known codes),
//! calls kolo's public face, and turns errors into status codes and a text per thread.
//!
//! No panic crosses it: see [`status::guard`].

mod collectives;
mod comm;
mod memory;
mod messages;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub use collectives::*;
pub use comm::*;
pub use messages::*;
pub use status::*;
pub use types::*;
