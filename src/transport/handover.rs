//! How ranks give each other descriptors of shared memory.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::Meeting;
use super::shm::{Shm, receive_hello, send_hello};
use crate::error::Result;
use crate::topology::Channel;

/// The channel of handovers, which no plan uses.
pub const HANDOVER: Channel = Channel::MAX - 1;

/// Hands descriptors of shared memory to peers; its meetings are on [`HANDOVER`].
pub trait Handover {
    /// Gives the peer of a meeting a descriptor; the peer takes it at the same time.
    fn give(&self, meeting: &Meeting<'_>, fd: BorrowedFd<'_>) -> Result<()>;

    /// Takes the descriptor that the peer gives.
    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd>;
}

/// Over a stream through the peer's door, which ends with the handover.
impl Handover for Shm {
    fn give(&self, meeting: &Meeting<'_>, fd: BorrowedFd<'_>) -> Result<()> {
        send_hello(&meeting.door.unix(meeting)?, &[fd])
    }

    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd> {
        let [fd] = receive_hello(&meeting.door.unix(meeting)?, meeting.deadline)?;
        Ok(fd)
    }
}
