//! Descriptors that a launcher left open, and who sits at the other end of a UNIX socket.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

const SOL_SOCKET: i32 = 1;
const SO_PEERCRED: i32 = 17;

/// `struct ucred` of `socket(7)`.
#[repr(C)]
#[derive(Default)]
struct Credentials {
    pid: i32,
    uid: u32,
    gid: u32,
}

// SAFETY: as in <sys/socket.h>, with the one structure that is asked for here.
unsafe extern "C" {
    fn getsockopt(fd: i32, level: i32, name: i32, value: *mut Credentials, len: *mut u32) -> i32;
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
    let mut credentials = Credentials::default();
    let mut len = size_of::<Credentials>() as u32;
    // SAFETY: both pointers are to locals; `len` says how much of `credentials` may be written.
    let outcome = unsafe {
        getsockopt(socket.as_fd().as_raw_fd(), SOL_SOCKET, SO_PEERCRED, &mut credentials, &mut len)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(credentials.uid)
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
