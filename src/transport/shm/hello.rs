//! How two processes of a host hand each other descriptors: the first that they say to each other.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::layout::Layout;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::sys::os;
use crate::transport::fifo::SLOT;

/// The first bytes that each rank sends: what it expects of the other.
pub(super) const HELLO: [u64; 3] =
    [u64::from_be_bytes(*b"kolo/shm"), size_of::<Layout>() as u64, SLOT as u64];

/// Sends a greeting with descriptors.
pub(in crate::transport) fn send_hello(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> Result<()> {
    os::send_with(stream, HELLO.map(u64::to_ne_bytes).as_flattened(), fds).map_err(|cause| {
        match cause.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => hung_up(),
            _ => Error::system("cannot hand shared memory to a peer (sendmsg)", cause),
        }
    })
}

/// Receives a peer's greeting, and as many descriptors as it must bring.
pub(in crate::transport) fn receive_hello<const N: usize>(
    stream: &UnixStream,
    deadline: Deadline,
) -> Result<[OwnedFd; N]> {
    receive_descriptors(stream, deadline)?.try_into().map_err(|fds: Vec<_>| {
        Error::new(Kind::Refused, format!("it sent {} descriptors instead of {N}", fds.len()))
    })
}

/// Receives a peer's greeting, and whatever descriptors it brings.
pub(in crate::transport) fn receive_descriptors(
    stream: &UnixStream,
    deadline: Deadline,
) -> Result<Vec<OwnedFd>> {
    if deadline.passed() {
        return Err(late());
    }
    let mut hello = [[0; 8]; HELLO.len()];
    let fds = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(deadline.left()))
        .and_then(|()| os::receive_with(stream, hello.as_flattened_mut()))
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => hung_up(),
            _ => Error::system("cannot receive a peer's shared memory (recvmsg)", cause),
        })?;
    let hello = hello.map(u64::from_ne_bytes);
    if hello != HELLO {
        let text =
            format!("it lays out shared memory differently ({hello:x?}, here {HELLO:x?}); use one build");
        return Err(Error::new(Kind::Refused, text));
    }
    Ok(fds)
}

fn late() -> Error {
    Error::new(Kind::Deadline, "it did not set up shared memory in time")
}

fn hung_up() -> Error {
    Error::new(Kind::PeerLost, "it hung up before they shared memory: it has left, or its process is gone")
}

pub(super) fn gone() -> Error {
    Error::new(Kind::PeerLost, "its process is gone")
}
