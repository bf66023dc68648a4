//! A value in memory that several processes share.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::Region;
use crate::error::Result;

/// Every alignment that a type in shared memory may ask for.
const PAGE: usize = 4096;

/// What may lie in memory that another process writes.
///
/// # Safety
/// All bytes, zeros too, are a valid value; and each byte is part of an atomic or an `UnsafeCell`, since
/// it changes without our doing. There is nothing to drop.
pub(crate) unsafe trait Shareable {}

/// A `T` in a [`Region`].
pub(crate) struct Shared<T> {
    region: Region,
    value: PhantomData<T>,
}

// SAFETY: it owns its mapping, which any thread may take away.
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: it gives out nothing but `&T`.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T: Shareable> Shared<T> {
    /// A new one, all zeros, and the descriptor that hands it to others.
    pub(crate) fn create(name: &str) -> Result<(Self, OwnedFd)> {
        let (region, fd) = Region::create(name, size_of::<T>())?;
        Ok((Self::over(region), fd))
    }

    /// The one behind a descriptor that a peer sent.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> Result<Self> {
        Region::open(fd, size_of::<T>()).map(Self::over)
    }

    fn over(region: Region) -> Self {
        const { assert!(align_of::<T>() <= PAGE && !std::mem::needs_drop::<T>()) };
        Self { region, value: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the region is as long as a `T`, page-aligned and lasts as long as `self`; whatever it
        // holds is a valid `T`, and may change under us, as `T: Shareable` says.
        unsafe { self.region.start().cast().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
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
