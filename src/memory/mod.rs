//! Memory that collectives read and write.

mod bell;
mod doorbell;
mod shared;
mod view;

pub use bell::{Bell, Ringer};
pub(crate) use shared::{Shareable, Shared};
pub use view::View;
