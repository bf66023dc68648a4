//! The credit FIFO: one writer, one reader, a ring of numbered slots; checked in `tests/models.rs`.
//!
//! Messages count from 1; message `n` lies in slot `n % SLOTS`.
//!
//! | writer                                          | reader                                      |
//! | ----------------------------------------------- | ------------------------------------------- |
//! | n - released > SLOTS: no room (looks again)     | slot.number is not n: nothing there         |
//! | writes the message into the slot                | reads it where it lies, and may write there |
//! | slot.number := n (release)                      | released := n (release), or later with more |
//!
//! Each counter has one writer. The writer keeps the last `released` that it saw and looks at the reader's
//! line only when that says that all slots are taken. (After the credit FIFO of NCCL and MSCCL++, with the
//! number beside the payload as in NCCL's LL protocol, so that a small message crosses in one line.)

use std::cell::Cell;
use std::ops::Deref;

use crate::sys::atomic::{AtomicU64, Ordering};

/// The most bytes of one message between ranks of one host: large enough that a message's fixed costs
/// vanish, and so small that the rings of a pair, both ways, stay in the two cores' second-level caches.
pub(crate) const SLOT: usize = 128 << 10;

/// How many such messages may be on their way in one direction: one being written, one being read, and
/// one each for the ranks not to wait for each other's every step.
pub(crate) const CREDIT: usize = 4;

/// Keeps what two cores write apart: two lines, since cores fetch neighbours together.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Apart<T>(T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A counter of the other side's that no correct peer could have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// The writer's own memory of a ring.
#[derive(Debug)]
pub(crate) struct Writer<const SLOTS: usize> {
    /// The number of the next message.
    next: Cell<u64>,
    /// The last message known to be released, by the reader's word or by news.
    released: Cell<u64>,
    /// The reader's last word, which news may be ahead of.
    word: Cell<u64>,
    /// Bit i: whether message `next - 1 - i` lies in a buffer of its own.
    buffered: Cell<u64>,
}

impl<const SLOTS: usize> Writer<SLOTS> {
    pub(crate) const fn new() -> Self {
        const { assert!(SLOTS < u64::BITS as usize) };
        Self { next: Cell::new(1), released: Cell::new(0), word: Cell::new(0), buffered: Cell::new(0) }
    }

    /// The slot of the next message; nothing while all are taken.
    #[inline]
    pub(crate) fn room(&self, released: &AtomicU64) -> Result<Option<usize>, Forged> {
        let next = self.next.get();
        if next - self.released.get() > SLOTS as u64 {
            let now = released.load(Ordering::Acquire);
            if now < self.word.get() || now >= next {
                return Err(Forged);
            }
            self.word.set(now);
            self.released.set(self.released.get().max(now));
            if next - self.released.get() > SLOTS as u64 {
                return Ok(None);
            }
        }
        Ok(Some((next % SLOTS as u64) as usize))
    }

    /// How many buffers the reader may still hold, as far as this side knows; with `look`, for sure.
    #[inline]
    pub(crate) fn on_their_way(&self, look: Option<&AtomicU64>) -> u32 {
        if let Some(released) = look {
            self.hear(released.load(Ordering::Acquire) as u32);
        }
        let messages = self.next.get() - 1 - self.released.get();
        (self.buffered.get() & ((1 << messages) - 1)).count_ones()
    }

    /// News of how far the reader is, from the low bits of its count, which a message of its own brought.
    /// Old news, and what cannot be, change nothing.
    #[inline]
    pub(crate) fn hear(&self, low: u32) {
        let known = self.released.get();
        let more = u64::from(low.wrapping_sub(known as u32) & Self::NEWS);
        if known + more < self.next.get() {
            self.released.set(known + more);
        }
    }

    /// The count that such news, of a message that has just been received, were the low bits of.
    pub(crate) fn meant(&self, low: u32) -> u64 {
        let sent = self.next.get() - 1;
        sent.saturating_sub(u64::from((sent as u32).wrapping_sub(low) & Self::NEWS))
    }

    /// The number of the next message.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.next.get()
    }

    /// The bits of [`hear`](Self::hear).
    pub(crate) const NEWS: u32 = (1 << 24) - 1;

    /// Shows what was written into the slot that [`room`](Self::room) gave; `number` is that slot's. Says whether
    /// the message lies in a buffer of its own.
    #[inline]
    pub(crate) fn publish(&self, number: &AtomicU64, buffered: bool) {
        let next = self.next.get();
        self.buffered.set(self.buffered.get() << 1 | u64::from(buffered));
        number.store(next, Ordering::Release);
        self.next.set(next + 1);
    }
}

/// The reader's own memory of a ring.
#[derive(Debug)]
pub(crate) struct Reader<const SLOTS: usize> {
    /// The number of the next message.
    next: Cell<u64>,
}

impl<const SLOTS: usize> Reader<SLOTS> {
    pub(crate) const fn new() -> Self {
        Self { next: Cell::new(1) }
    }

    /// Where the next message will lie.
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        (self.next.get() % SLOTS as u64) as usize
    }

    /// Whether it is there; `number` is its slot's.
    #[inline]
    pub(crate) fn arrived(&self, number: &AtomicU64) -> bool {
        number.load(Ordering::Acquire) == self.next.get()
    }

    /// How many messages were given back.
    #[inline]
    pub(crate) fn released(&self) -> u64 {
        self.next.get() - 1
    }

    /// Gives its slot back; says so at once, or once in a while. Whether it has.
    ///
    /// To a writer that waits for credit each word costs a line's way there and back. It can have `SLOTS / 2`
    /// messages on their way all the same.
    #[inline]
    pub(crate) fn release(&self, released: &AtomicU64, at_once: bool) -> bool {
        let number = self.next.get();
        self.next.set(number + 1);
        let says = at_once || number.is_multiple_of(SLOTS as u64 / 2);
        if says {
            released.store(number, Ordering::Release);
        }
        says
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn news_are_understood_past_their_wrap() {
        let wrap = u64::from(Writer::<4>::NEWS) + 1;
        let writer = Writer::<4>::new();
        writer.next.set(wrap + 3);
        writer.released.set(wrap - 2);
        writer.buffered.set(!0);
        assert_eq!(writer.on_their_way(None), 4);
        writer.hear((wrap + 1) as u32 & Writer::<4>::NEWS);
        assert_eq!(writer.on_their_way(None), 1);
        for old_or_forged in [wrap - 1, wrap, wrap + 3, wrap + 500] {
            writer.hear(old_or_forged as u32 & Writer::<4>::NEWS);
            assert_eq!(writer.on_their_way(None), 1, "{old_or_forged}");
        }
        for count in [wrap - 2, wrap - 1, wrap, wrap + 2] {
            assert_eq!(writer.meant(count as u32 & Writer::<4>::NEWS), count);
        }
        writer.hear((wrap + 2) as u32);
        assert_eq!(writer.on_their_way(None), 0);
    }

    #[test]
    fn a_credit_that_was_never_earned_is_refused() {
        let (writer, number) = (Writer::<2>::new(), AtomicU64::new(0));
        for _ in 0..2 {
            writer.publish(&number, false);
        }
        assert_eq!(writer.room(&AtomicU64::new(0)), Ok(None));
        assert_eq!(writer.room(&AtomicU64::new(3)), Err(Forged));
        assert_eq!(writer.room(&AtomicU64::new(u64::MAX)), Err(Forged));
        assert_eq!(writer.room(&AtomicU64::new(1)), Ok(Some(1)));
        writer.publish(&number, false);
        assert_eq!(writer.room(&AtomicU64::new(0)), Err(Forged), "credit does not go back");
    }
}
