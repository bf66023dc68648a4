//! Anonymous memory that several processes share.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::error::{Error, Kind, Result};
use crate::sys::os;

/// Every alignment that a type in shared memory may ask for.
const PAGE: usize = 4096;

/// What may lie in memory that another process writes.
///
/// # Safety
/// All bytes, zeros too, are a valid value; and each byte is part of an atomic or an `UnsafeCell`, since
/// it changes without our doing. There is nothing to drop.
pub(crate) unsafe trait Shareable {}

/// A `T` in a memfd, mapped whole.
///
/// It has no name and no file; it is gone when the last process that maps it is. Pages exist once they
/// are touched. Its size is sealed before any other process sees it, and a stranger's descriptor is mapped
/// only if its size is sealed: so no peer can make an access of ours fail.
pub(crate) struct Shared<T> {
    start: NonNull<c_void>,
    value: PhantomData<T>,
}

// SAFETY: it owns its mapping, which any thread may take away.
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: it gives out nothing but `&T`.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// A new one, all zeros, and the descriptor that hands it to others.
    pub(crate) fn create(name: &str) -> Result<(Self, OwnedFd)> {
        let fd = os::memfd(name, size_of::<T>())
            .map_err(|cause| Error::system("cannot create shared memory (memfd_create)", cause))?;
        Ok((Self::map(fd.as_fd())?, fd))
    }

    /// The one behind a descriptor that a peer sent.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> Result<Self> {
        let size = os::sealed_len(fd).map_err(|cause| {
            Error::new(Kind::Refused, format!("a peer's shared memory cannot be trusted: {cause}"))
        })?;
        if size != size_of::<T>() as u64 {
            let expected = size_of::<T>();
            return Err(Error::new(
                Kind::Refused,
                format!("a peer's shared memory has {size} bytes instead of {expected}"),
            ));
        }
        Self::map(fd)
    }

    fn map(fd: BorrowedFd<'_>) -> Result<Self> {
        const { assert!(align_of::<T>() <= PAGE && !std::mem::needs_drop::<T>()) };
        let start = os::map(fd, size_of::<T>())
            .map_err(|cause| Error::system("cannot map shared memory (mmap)", cause))?;
        Ok(Self { start, value: PhantomData })
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as a `T`, page-aligned and lasts as long as `self`; whatever it
        // holds is a valid `T`, and may change under us, as `T: Shareable` says.
        unsafe { self.start.cast().as_ref() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this size; every borrow of it has ended.
        unsafe { os::unmap(self.start, size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    // SAFETY: an atomic integer.
    unsafe impl Shareable for AtomicU32 {}

    #[test]
    fn both_mappings_see_one_memory() {
        let (mine, fd) = Shared::<AtomicU32>::create("kolo-test").unwrap();
        let theirs = Shared::<AtomicU32>::open(fd.as_fd()).unwrap();
        mine.store(7, Ordering::Relaxed);
        assert_eq!(theirs.load(Ordering::Relaxed), 7);
        drop((mine, fd));
        assert_eq!(theirs.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn memory_that_its_owner_could_take_away_is_refused() {
        use rustix::fs::{MemfdFlags, SealFlags};
        let fd =
            rustix::fs::memfd_create("kolo-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4).unwrap();
        let error = |fd: &OwnedFd| Shared::<AtomicU32>::open(fd.as_fd()).err().map(|error| error.to_string());
        assert!(error(&fd).unwrap().ends_with("its size is not sealed"));
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
        assert_eq!(error(&fd), None);
        rustix::fs::ftruncate(&fd, 8).unwrap();
        assert!(error(&fd).unwrap().ends_with("has 8 bytes instead of 4"));
        let file = std::fs::File::open("/proc/self/exe").unwrap().into();
        assert!(error(&file).unwrap().contains("cannot be trusted"));
    }

    #[test]
    fn our_own_memory_cannot_be_cut() {
        let (_memory, fd) = Shared::<AtomicU32>::create("kolo-test").unwrap();
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 1 << 20).is_err());
    }
}
