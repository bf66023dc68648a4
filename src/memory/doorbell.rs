//! How a publisher knows, without a fence, whether to wake the other side; checked in `tests/models.rs`.
//!
//! | sleeper                                       | publisher                                       |
//! | --------------------------------------------- | ----------------------------------------------- |
//! | announces: state := how it will sleep         | publishes                                       |
//! | heavy barrier                                 | light barrier                                   |
//! | looks once more for what may have come        | state is awake: done                            |
//! | sleeps while state is what it announced       | else: state := awake, wakes it the way it said  |
//!
//! Each side writes, then reads what the other wrote; without a barrier between, both could miss. The
//! sleeper's heavy one (`membarrier`, microseconds, it was going to sleep anyway) is executed on the
//! publisher's core, too, so that the publisher's costs nothing: it only holds back the compiler.

use crate::sys::atomic::{AtomicU32, Ordering};

/// Not sleeping, nor about to.
const AWAKE: u32 = 0;

/// How a sleeper wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Asleep {
    /// On the word itself.
    Futex = 1,
    /// In a poll that includes its eventfd.
    Poll = 2,
}

impl Asleep {
    fn of(value: u32) -> Option<Self> {
        [Self::Futex, Self::Poll].into_iter().find(|how| *how as u32 == value)
    }
}

/// The word that both sides look at.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Doorbell(AtomicU32);

impl Doorbell {
    /// The sleeper: says how it is going to sleep. It must look once more before it does.
    pub(crate) fn announce(&self, how: Asleep, heavy_barrier: impl FnOnce()) {
        // A swap takes its place after a late publisher's; of a store, the model checker would not know.
        self.0.swap(how as u32, Ordering::Relaxed);
        heavy_barrier();
    }

    /// The sleeper: is awake again.
    pub(crate) fn rise(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// The publisher, after it published: how to wake the sleeper, if there is one and nobody else does.
    #[inline]
    pub(crate) fn ring(&self, light_barrier: impl FnOnce()) -> Option<Asleep> {
        light_barrier();
        if self.0.load(Ordering::Relaxed) == AWAKE { None } else { self.rouse() }
    }

    #[cold]
    fn rouse(&self) -> Option<Asleep> {
        Asleep::of(self.0.swap(AWAKE, Ordering::Relaxed))
    }

    /// The sleeper: how it said that it will sleep, unless it has been rung since.
    pub(crate) fn announced(&self) -> Option<Asleep> {
        Asleep::of(self.0.load(Ordering::Relaxed))
    }

    /// What a futex waits on.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
