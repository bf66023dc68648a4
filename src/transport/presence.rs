//! Whether the rank at the other end of a link still takes part; checked in `tests/models.rs`.

use crate::error::{Error, Kind, Result};
use crate::sys::atomic::{AtomicU32, Ordering};

/// Written by one rank, read by its peer. Zero, as fresh memory is: taking part.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Presence(AtomicU32);

const HERE: u32 = 0;
const FAILED: u32 = 1;
const LEFT: u32 = 2;

impl Presence {
    /// Says that this rank is done because of an error; what it sent before stays.
    pub(crate) fn fail(&self) {
        self.0.store(FAILED, Ordering::Release);
    }

    /// Says that this rank is done.
    pub(crate) fn leave(&self) {
        if self.here() {
            self.0.store(LEFT, Ordering::Release);
        }
    }

    /// Whether the rank still takes part; if not, everything that it sent can be seen by now.
    #[inline]
    pub(crate) fn here(&self) -> bool {
        self.0.load(Ordering::Acquire) == HERE
    }

    /// An error where the rank no longer takes part.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Acquire) {
            HERE => Ok(()),
            LEFT => Err(Error::new(Kind::PeerLost, "it has left the communicator")),
            _ => Err(Error::new(Kind::PeerLost, "it left the communicator after an error of its own")),
        }
    }

    /// For a reader that found nothing: an error where nothing will come any more. What was sent before
    /// the rank left counts, so `come` looks once more after the news.
    #[inline]
    pub(crate) fn check_after(&self, come: impl FnOnce() -> bool) -> Result<()> {
        self.check().or_else(|lost| if come() { Ok(()) } else { Err(lost) })
    }
}
