//! The last records of one writer, for whoever wants to read them meanwhile: no lock, no wait, nothing allocated.
//!
//! ```text
//! written = 6, LEN = 4      slot 0     slot 1     slot 2     slot 3
//!                           record 4   record 5   record 2   record 3
//!                                                 ▲ the next one goes here
//! ```
//! The writer fills the oldest slot, and then counts. A reader that copies slots and finds that the writer has counted
//! on meanwhile throws away what may have been overwritten under its eyes.

use crate::sys::atomic::{AtomicU64, Ordering, fence};

/// Records of `WORDS` words, of which the last `LEN` are kept, less the one whose place is being taken. `LEN` is a
/// power of two.
pub(super) struct Ring<const WORDS: usize, const LEN: usize> {
    slots: Box<[[AtomicU64; WORDS]; LEN]>,
    /// How many records were ever written.
    written: AtomicU64,
}

impl<const WORDS: usize, const LEN: usize> Ring<WORDS, LEN> {
    /// An empty one.
    pub(super) fn new() -> Self {
        const { assert!(LEN.is_power_of_two()) };
        let slot = || std::array::from_fn(|_| AtomicU64::new(0));
        let slots: Box<[_]> = std::iter::repeat_with(slot).take(LEN).collect();
        let slots = slots.try_into().unwrap_or_else(|_| unreachable!("there are LEN of them"));
        Self { slots, written: AtomicU64::new(0) }
    }

    /// Adds a record, whose last words may be left as they were for an older one. One thread at a time may do so.
    #[inline(always)]
    pub(super) fn push<const GIVEN: usize>(&self, record: [u64; GIVEN]) {
        const { assert!(GIVEN <= WORDS) };
        let number = self.written.load(Ordering::Relaxed);
        // Who sees one of these words also sees that the record which was here before is not to be read any more.
        fence(Ordering::Release);
        for (word, value) in std::iter::zip(&self.slots[number as usize & (LEN - 1)], record) {
            word.store(value, Ordering::Relaxed);
        }
        self.written.store(number + 1, Ordering::Release);
    }

    /// Changes a word of the newest record. Only its writer may.
    #[inline(always)]
    pub(super) fn amend(&self, word: usize, value: u64) {
        let newest = self.written().wrapping_sub(1);
        self.slots[newest as usize & (LEN - 1)][word].store(value, Ordering::Relaxed);
    }

    /// How many records were ever written.
    #[inline(always)]
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The last records, the oldest first, and that one's number. The newest may still be amended.
    pub(super) fn read(&self) -> (u64, Vec<[u64; WORDS]>) {
        let written = self.written.load(Ordering::Acquire);
        let mut first = written.saturating_sub(LEN as u64);
        let slot = |number: u64| &self.slots[number as usize & (LEN - 1)];
        let copy = |number: u64| std::array::from_fn(|word| slot(number)[word].load(Ordering::Relaxed));
        let mut records: Vec<_> = (first..written).map(copy).collect();
        fence(Ordering::Acquire);
        // The place of this record, and of those before it, may be another one's by now.
        let taken = (self.written.load(Ordering::Relaxed) + 1).saturating_sub(LEN as u64);
        let lost = taken.saturating_sub(first).min(records.len() as u64);
        records.drain(..lost as usize);
        first += lost;
        (first, records)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_records_are_kept() {
        let ring = Ring::<2, 4>::new();
        assert_eq!(ring.read(), (0, vec![]));
        for number in 0..3 {
            ring.push([number, 0]);
            ring.amend(1, 10 * number);
        }
        assert_eq!(ring.read(), (0, vec![[0, 0], [1, 10], [2, 20]]));
        (3..9).for_each(|number| ring.push([number, 0]));
        assert_eq!(ring.read(), (6, vec![[6, 0], [7, 0], [8, 0]]));
        assert_eq!(ring.written(), 9);
    }
}
