//! How ranks give each other descriptors of shared memory.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::Meeting;
use super::shm::{Shm, receive_descriptors, send_hello};
use crate::error::{Error, Kind, Result};
use crate::topology::Channel;

/// The channel of handovers, which no plan uses.
pub const HANDOVER: Channel = Channel::MAX - 1;

/// Hands descriptors of shared memory to peers; its meetings are on [`HANDOVER`].
pub trait Handover {
    /// Gives the peer of a meeting a descriptor, or tells it that there is none; the peer takes it at the
    /// same time.
    fn give(&self, meeting: &Meeting<'_>, fd: Option<BorrowedFd<'_>>) -> Result<()>;

    /// Takes the descriptor that the peer gives.
    ///
    /// # Errors
    /// [`Kind::System`] where it has none.
    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd>;
}

/// Over a stream through the peer's door, which ends with the handover.
impl Handover for Shm {
    fn give(&self, meeting: &Meeting<'_>, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        send_hello(&meeting.door.unix(meeting)?, fd.as_slice())
    }

    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd> {
        let fds = receive_descriptors(&meeting.door.unix(meeting)?, meeting.deadline)?;
        // Who sends more is a stranger, whose memory will be looked at before it is mapped.
        fds.into_iter().next().ok_or_else(no_memory)
    }
}

/// The peer has no descriptor to give.
#[cold]
pub(super) fn no_memory() -> Error {
    Error::new(Kind::System, "it has no memory to share")
}
