//! The operating system, where no crate reaches it safely.

mod socket;

pub(crate) use socket::{inherited, peer_user};
