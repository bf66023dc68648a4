//! The operating system, through rustix: anonymous shared memory, descriptors over sockets, sleep.

use std::ffi::c_void;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::thread::futex;
use rustix::thread::{CpuSet, MembarrierCommand};

// Of the C library: what rustix has for these reads memory that valgrind does not show to static programs.
// SAFETY: as in <sched.h> and <unistd.h>; they take nothing, and return a core or -1, and the bytes of a page.
unsafe extern "C" {
    safe fn sched_getcpu() -> std::ffi::c_int;
    safe fn getpagesize() -> std::ffi::c_int;
}

/// What nobody may do any more to a memfd of ours: change its size, or these rules.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The most descriptors of one message.
pub(crate) const MAX_DESCRIPTORS: usize = 4;

/// Anonymous memory of `len` zero bytes, of a size fixed for ever; `name` is what /proc shows.
pub(crate) fn memfd(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    rustix::fs::fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// How many bytes a memfd has, and for ever: an error where its owner could still take them away, which
/// would kill whoever touches them.
pub(crate) fn sealed_len(fd: BorrowedFd<'_>) -> io::Result<u64> {
    if !rustix::fs::fcntl_get_seals(fd)?.contains(SealFlags::SHRINK) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its size is not sealed"));
    }
    Ok(rustix::fs::fstat(fd)?.st_size.try_into().unwrap_or(0))
}

/// Maps the first `len` bytes of a memfd, to be shared; nothing is populated.
pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<NonNull<c_void>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
    NonNull::new(start).ok_or_else(|| io::Error::other("mapped at address zero"))
}

/// Takes a mapping away.
///
/// # Safety
/// `start` and `len` must be those of a [`map`] that nobody uses any more.
pub(crate) unsafe fn unmap(start: NonNull<c_void>, len: usize) {
    // SAFETY: as the caller promises. It can only fail on arguments that no mapping has.
    let _ = unsafe { rustix::mm::munmap(start.as_ptr(), len) };
}

/// The bytes of a page.
pub(crate) fn page() -> usize {
    getpagesize() as usize
}

/// Gives pages of a memfd back to the system, whoever maps them; zeros are read there from then on. Where the
/// kernel cannot, they stay.
///
/// # Safety
/// These must be whole pages of a [`map`], and nobody may rely on what they hold.
pub(crate) unsafe fn discard(start: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    let _ = unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxRemove) };
}

/// Puts pages of this process' own into the place of a memfd's, with the same bytes, at once.
///
/// # Safety
/// These must be whole pages of a [`map`], and no other thread may be writing them.
pub(crate) unsafe fn detach(start: *mut u8, len: usize) -> io::Result<()> {
    let (anywhere, protection) = (std::ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let own = unsafe { rustix::mm::mmap_anonymous(anywhere, len, protection, MapFlags::PRIVATE) }?;
    // SAFETY: both are that long, and apart.
    unsafe { std::ptr::copy_nonoverlapping(start, own.cast(), len) };
    let flags = MremapFlags::MAYMOVE;
    // SAFETY: what is mapped over is the caller's; afterwards the same bytes lie there.
    match unsafe { rustix::mm::mremap_fixed(own, len, len, flags, start.cast()) } {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: mapped above, and nobody knows it.
            let _ = unsafe { rustix::mm::munmap(own, len) };
            Err(errno.into())
        }
    }
}

/// A counter that a descriptor shows; reading and writing it never block.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes an eventfd readable. It can only fail when it is readable already, or not an eventfd.
pub(crate) fn signal(event: BorrowedFd<'_>) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// Makes an eventfd unreadable again.
pub(crate) fn drain(event: BorrowedFd<'_>) {
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}

/// Sleeps while `word` holds `value`, until [`wake`] from any process that maps it, a signal or `timeout`.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout: Option<Duration>) -> io::Result<()> {
    // Not FUTEX_PRIVATE: the waker may be another process.
    match futex::wait(word, futex::Flags::empty(), value, timespec(timeout).as_ref()) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::TIMEDOUT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Wakes one thread that sleeps on `word`.
pub(crate) fn wake(word: &AtomicU32) {
    // Fails on a misaligned word only, and this one is not.
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Sleeps until one of `fds` is ready, a signal or `timeout`.
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    match rustix::event::poll(fds, timespec(timeout).as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// `None` where it is longer than the kernel can count.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| timeout.try_into().ok())
}

/// Asks that this process' threads take part in every [`barrier`]; once more is no harm.
pub(crate) fn join_barriers() -> io::Result<()> {
    Ok(rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited)?)
}

/// Has every running thread of every process that joined execute a full memory barrier before it returns;
/// false where the kernel cannot.
pub(crate) fn barrier() -> bool {
    rustix::thread::membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// The cores that the calling thread may use, as the kernel numbers them; none where it does not tell.
pub(crate) fn cores() -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
}

/// The core that the calling thread runs on.
pub(crate) fn core() -> usize {
    // The C library's: rustix finds the kernel's by a way that valgrind closes to static programs.
    usize::try_from(sched_getcpu()).unwrap_or(0)
}

/// Has the calling thread run on `core` next, if it may use it. What it may use stays as it is, so that the
/// kernel can move it elsewhere at any time.
pub(crate) fn move_to(core: usize) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    if core >= CpuSet::MAX_CPU || !allowed.is_set(core) {
        return;
    }
    let mut only = CpuSet::new();
    only.set(core);
    if rustix::thread::sched_setaffinity(None, &only).is_ok() {
        // It was allowed a moment ago.
        let _ = rustix::thread::sched_setaffinity(None, &allowed);
    }
}

/// Sends a few bytes and descriptors as one message.
pub(crate) fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let sent = rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    if sent < bytes.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the socket took a part of a message"));
    }
    Ok(())
}

/// Receives exactly as many bytes as `bytes` holds, and the descriptors that came with them.
pub(crate) fn receive_with(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::io::retry_on_intr(|| {
            let rest = IoSliceMut::new(&mut bytes[filled..]);
            rustix::net::recvmsg(stream, &mut [rest], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            // A peer sends no more than there is room for.
            return Err(rustix::io::Errno::MFILE.into());
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += got.bytes;
    }
    Ok(fds)
}

/// Whether the other end of a stream is closed: its owner closed it, or its process is gone.
pub(crate) fn ended(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::RDHUP)];
    poll(&mut fds, Some(Duration::ZERO)).is_ok() && !fds[0].revents().is_empty()
}
