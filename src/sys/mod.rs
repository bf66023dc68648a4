//! The world outside: the only floor that calls it.

pub(crate) mod atomic;
pub(crate) mod os;
mod socket;

pub(crate) use socket::{inherited, peer_user};
