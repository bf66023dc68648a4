//! Memory that collectives read and write.

mod bell;
mod scratch;
mod view;

pub use bell::Bell;
pub use scratch::Scratch;
pub use view::View;
