//! Reading another rank's memory, and taking that right back; checked in `tests/models.rs`.

use crate::sys::atomic::{AtomicU32, Ordering};

/// Who may read what a slot lends.
///
/// ```text
/// FREE --lender lends--> LENT --reader opens--> READ --reader is done--> FREE
///                          `--lender revokes--> FREE
/// ```
#[derive(Debug, Default)]
pub(crate) struct Lease(AtomicU32);

impl Lease {
    const FREE: u32 = 0;
    const LENT: u32 = 1;
    const READ: u32 = 2;

    /// The lender: lends what it publishes next.
    pub(crate) fn lend(&self) {
        self.0.store(Self::LENT, Ordering::Relaxed);
    }

    /// The reader: whether it may read; not so if the lender has revoked.
    pub(crate) fn open(&self) -> bool {
        self.0.compare_exchange(Self::LENT, Self::READ, Ordering::Relaxed, Ordering::Acquire).is_ok()
    }

    /// The reader: reads no more.
    pub(crate) fn close(&self) {
        if self.is_read() {
            self.0.store(Self::FREE, Ordering::Release);
        }
    }

    /// The lender: takes back what nobody reads yet.
    pub(crate) fn revoke(&self) {
        let _ = self.0.compare_exchange(Self::LENT, Self::FREE, Ordering::Release, Ordering::Relaxed);
    }

    /// The reader: whether it is reading what is not its own.
    pub(crate) fn is_read(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::READ
    }

    /// The lender: whether nobody reads it, now or later.
    pub(crate) fn is_free(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::FREE
    }
}
