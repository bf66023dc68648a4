//! Memory that collectives read and write.

mod bell;
mod bytes;
mod view;

pub use bell::Bell;
pub use bytes::{as_bytes, as_bytes_mut, zeroed};
pub use view::View;
