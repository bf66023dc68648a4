//! Anonymous memory that several processes share, of a length known at run time.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use super::View;
use crate::error::{Error, Kind, Result};
use crate::sys::os;

/// A memfd, mapped whole.
///
/// It has no name and no file; it is gone when the last process that maps it is. Pages exist once they
/// are touched. Its size is sealed before any other process sees it, and a stranger's descriptor is mapped
/// only if its size is sealed: so no peer can make an access of ours fail.
#[derive(Debug)]
pub struct Region {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it owns its mapping, which any thread may take away.
unsafe impl Send for Region {}
// SAFETY: it gives out nothing but addresses.
unsafe impl Sync for Region {}

impl Region {
    /// A new one, all zeros, and the descriptor that hands it to others; `name` is what /proc shows.
    ///
    /// # Errors
    /// [`Kind::System`] where there is no memory.
    pub fn create(name: &str, len: usize) -> Result<(Self, OwnedFd)> {
        let fd = os::memfd(name, len)
            .map_err(|cause| Error::system("cannot create shared memory (memfd_create)", cause))?;
        Ok((Self::map(fd.as_fd(), len)?, fd))
    }

    /// The one of `len` bytes behind a descriptor that a peer sent.
    ///
    /// # Errors
    /// [`Kind::Refused`] where it has another size, or one that its owner may change.
    pub fn open(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let size = os::sealed_len(fd).map_err(|cause| {
            Error::new(Kind::Refused, format!("a peer's shared memory cannot be trusted: {cause}"))
        })?;
        if size != len as u64 {
            let text = format!("a peer's shared memory has {size} bytes instead of {len}");
            return Err(Error::new(Kind::Refused, text));
        }
        Self::map(fd, len)
    }

    fn map(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let start =
            os::map(fd, len).map_err(|cause| Error::system("cannot map shared memory (mmap)", cause))?;
        Ok(Self { start, len })
    }

    /// Its first byte, on a page's boundary.
    pub(super) fn start(&self) -> NonNull<c_void> {
        self.start
    }

    /// All of it. Whoever else maps it must be kept apart by a protocol.
    pub fn view(&self) -> View<'_> {
        // SAFETY: mapped readable and writable as long as `self`; views hand out no references.
        unsafe { View::from_raw(self.start.as_ptr().cast(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; every borrow of it has ended.
        unsafe { os::unmap(self.start, self.len) };
    }
}
