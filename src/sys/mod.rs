//! The world outside: the only floor that calls it.

pub(crate) mod atomic;
pub(crate) mod cgroup;
pub(crate) mod fabric;
pub(crate) mod library;
pub(crate) mod os;
pub(crate) mod pmix;
pub(crate) mod socket;
pub(crate) mod ticks;
