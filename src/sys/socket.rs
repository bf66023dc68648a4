//! Descriptors that a launcher left open; who sits at the other end of a UNIX socket, and whether a TCP peer's host
//! still answers.

use std::ffi::c_void;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

const SOL_SOCKET: i32 = 1;
const SO_PEERCRED: i32 = 17;
const IPPROTO_TCP: i32 = 6;
const TCP_INFO: i32 = 11;
const TCP_RTO_MAX_MS: i32 = 44;

/// `struct ucred` of `socket(7)`.
#[repr(C)]
#[derive(Default)]
struct Credentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

/// `struct tcp_info` of `tcp(7)`, as far as it is read here.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    scales: [u8; 2],
    times_and_counts: [u32; 12],
    last_ack_recv: u32,
}

// SAFETY: as in <sys/socket.h>.
unsafe extern "C" {
    fn getsockopt(fd: i32, level: i32, name: i32, value: *mut c_void, len: *mut u32) -> i32;
    fn setsockopt(fd: i32, level: i32, name: i32, value: *const c_void, len: u32) -> i32;
}

/// An option whose value is a structure of plain numbers.
fn option<T: Default>(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as u32;
    // SAFETY: both pointers are to locals; `len` says how much of the value may be written, and any bytes are one.
    let outcome = unsafe { getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
    if outcome == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// A copy of a descriptor that this process was started with. Neither passes on to its children.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error()));
    }
    // SAFETY: the number may be stale, so nothing is taken over: the kernel is asked for a copy of
    // whatever is there now, and refuses where nothing is.
    let theirs = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl_setfd(theirs, FdFlags::CLOEXEC)?;
    Ok(fcntl_dupfd_cloexec(theirs, 0)?)
}

/// The user whose process connected, or listened, at the other end of a UNIX socket.
///
/// (rustix has this call too, but its process number must not be 0, which the kernel gives for a peer
/// in another process namespace.)
pub(crate) fn peer_user(socket: impl AsFd) -> io::Result<u32> {
    option::<Credentials>(socket.as_fd(), SOL_SOCKET, SO_PEERCRED).map(|credentials| credentials.uid)
}

/// How long a TCP peer's host has acknowledged nothing, where it was asked more than once since: by data that is sent
/// again, or by probes. A host that lives answers those at once, whatever its processes do.
pub(crate) fn silence(socket: impl AsFd) -> io::Result<Duration> {
    let info: TcpInfo = option(socket.as_fd(), IPPROTO_TCP, TCP_INFO)?;
    let asked = info.retransmits.max(info.probes) > 1;
    Ok(if asked { Duration::from_millis(info.last_ack_recv.into()) } else { Duration::ZERO })
}

/// Has TCP ask a host that does not answer at least so often, where the kernel can (Linux 6.15): else the pauses
/// double, to two minutes.
pub(crate) fn ask_every(socket: impl AsFd, pause: Duration) {
    let pause = pause.as_millis().clamp(1_000, 120_000) as u32;
    let (len, socket) = (size_of::<u32>() as u32, socket.as_fd().as_raw_fd());
    // SAFETY: it reads one number. A kernel that does not know it keeps its pauses.
    let _ = unsafe { setsockopt(socket, IPPROTO_TCP, TCP_RTO_MAX_MS, (&raw const pause).cast(), len) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pair_of_sockets_has_this_user_at_both_ends() {
        let (a, b) = UnixStream::pair().unwrap();
        let me = rustix::process::geteuid().as_raw();
        assert_eq!((peer_user(&a).unwrap(), peer_user(&b).unwrap()), (me, me));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        assert!(inherited(-1).is_err());
        assert!(inherited(1_000_000).is_err());
    }
}
