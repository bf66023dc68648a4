//! Memory that collectives read and write.

mod bell;
mod view;

pub use bell::Bell;
pub use view::View;
