//! Buffers that travel with messages; checked in `tests/models.rs`.
//!
//! ```text
//!        A has 0 1 2                          B has 3 4 5
//!        sends 0 ──────────────────────────▶  reads 0, has it from its release on
//!        has 0 again  ◀──────────────────────  sends in 0: the line that it has just touched
//! ```
//!
//! Overwriting a line that the other core has read costs several times what it costs to overwrite a line of
//! one's own, so a message goes out in the buffer that was received last: lines migrate, they are not shared.
//! Where messages go one way only, a receiver that has more than its share gives back what it has read, and had
//! better store there before.
//!
//! | rank                                              | word that its peer reads        |
//! | ------------------------------------------------- | ------------------------------- |
//! | released a message, or answered in its buffer     |                                 |
//! | has and has sent more than `CAP`: gives some back | `returned` ^= 1 << that buffer  |
//!
//! A buffer that was given back cannot be so again before its owner saw that, so a bit's change says all.
//! Neither rank ever has, or has sent, more than `CAP` of `TOTAL`; so the other can always have
//! `TOTAL - CAP` messages on their way.

use std::cell::Cell;

use super::fifo::Forged;
use crate::sys::atomic::{AtomicU64, Ordering};

/// Which buffers this rank has.
#[derive(Debug)]
pub(crate) struct Pool<const TOTAL: u32, const CAP: u32> {
    /// A bit for each.
    mine: Cell<u64>,
    /// The one that was received last, if this rank still has it.
    latest: Cell<Option<u32>>,
    /// What the peer had returned when this rank last looked.
    seen: Cell<u64>,
    /// Whether this rank has given something back since it last sent.
    gave_back: Cell<bool>,
}

impl<const TOTAL: u32, const CAP: u32> Pool<TOTAL, CAP> {
    /// Half of them: the lower ones for the lower rank.
    pub(crate) fn new(higher: bool) -> Self {
        const { assert!(TOTAL.is_multiple_of(2) && TOTAL <= 64 && CAP < TOTAL && CAP >= TOTAL / 2) };
        let lower_half = (1 << (TOTAL / 2)) - 1;
        let mine = if higher { lower_half << (TOTAL / 2) } else { lower_half };
        Self {
            mine: Cell::new(mine),
            latest: Cell::new(None),
            seen: Cell::new(0),
            gave_back: Cell::new(false),
        }
    }

    /// The buffer that the next message goes out in; nothing while the peer has them all.
    #[inline]
    pub(crate) fn next(&self, returned: &AtomicU64) -> Result<Option<u32>, Forged> {
        if let Some(latest) = self.latest.get() {
            return Ok(Some(latest));
        }
        if self.mine.get() == 0 {
            self.take_back(returned)?;
        }
        let mine = self.mine.get();
        Ok((mine != 0).then(|| mine.trailing_zeros()))
    }

    #[cold]
    fn take_back(&self, returned: &AtomicU64) -> Result<(), Forged> {
        let now = returned.load(Ordering::Acquire);
        let back = now ^ self.seen.get();
        if back >> TOTAL != 0 || back & self.mine.get() != 0 {
            return Err(Forged);
        }
        self.seen.set(now);
        self.mine.set(self.mine.get() | back);
        Ok(())
    }

    /// A message went out in that buffer, which this rank had.
    #[inline]
    pub(crate) fn sent(&self, buffer: u32) {
        self.gave_back.set(false);
        self.part_with(buffer);
    }

    #[inline]
    fn part_with(&self, buffer: u32) {
        self.mine.set(self.mine.get() & !(1 << buffer));
        if self.latest.get() == Some(buffer) {
            self.latest.set(None);
        }
    }

    /// Whether a message can have come in that buffer.
    #[inline]
    pub(crate) fn could_come(&self, buffer: u32) -> bool {
        buffer < TOTAL && self.mine.get() & (1 << buffer) == 0
    }

    /// A message that came in that buffer has been released.
    #[inline]
    pub(crate) fn keep(&self, buffer: u32) {
        self.mine.set(self.mine.get() | 1 << buffer);
        self.latest.set(Some(buffer));
    }

    /// Whether what comes next will go back, as what came last did, since nothing has been sent.
    #[inline]
    pub(crate) fn gives_back(&self) -> bool {
        self.gave_back.get()
    }

    /// Gives back what this rank has beyond `CAP`, with what it has got back itself; `on_their_way` are its
    /// messages that the peer may still hold, asked for a second time only after a first count was too high.
    #[inline]
    pub(crate) fn settle(
        &self,
        [mine, theirs]: [&AtomicU64; 2],
        on_their_way: impl Fn(bool) -> u32,
    ) -> Result<(), Forged> {
        if theirs.load(Ordering::Relaxed) != self.seen.get() {
            self.take_back(theirs)?;
        }
        if self.mine.get().count_ones() + on_their_way(false) > CAP {
            self.give_back(mine, on_their_way(true));
        }
        Ok(())
    }

    #[cold]
    fn give_back(&self, returned: &AtomicU64, on_their_way: u32) {
        while self.mine.get().count_ones() + on_their_way > CAP && self.mine.get() != 0 {
            let buffer = self.latest.get().unwrap_or(self.mine.get().trailing_zeros());
            self.part_with(buffer);
            self.gave_back.set(true);
            // This rank alone writes it.
            returned.store(returned.load(Ordering::Relaxed) ^ 1 << buffer, Ordering::Release);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Four = Pool<4, 2>;

    #[test]
    fn an_exchange_swaps_buffers() {
        let (a, b) = (Four::new(false), Four::new(true));
        let returned = [AtomicU64::new(0), AtomicU64::new(0)];
        for round in 0..10 {
            let (x, y) = (a.next(&returned[1]).unwrap().unwrap(), b.next(&returned[0]).unwrap().unwrap());
            assert_eq!((x, y), if round % 2 == 0 { (0, 2) } else { (2, 0) });
            a.sent(x);
            b.sent(y);
            assert!(a.could_come(y) && b.could_come(x));
            a.keep(y);
            b.keep(x);
            a.settle([&returned[0], &returned[1]], |_| 0).unwrap();
            b.settle([&returned[1], &returned[0]], |_| 0).unwrap();
        }
        assert!(returned.iter().all(|mask| mask.load(Ordering::Relaxed) == 0), "nothing need be given back");
    }

    #[test]
    fn one_way_alone_never_runs_dry() {
        let (a, b) = (Four::new(false), Four::new(true));
        let (from_a, from_b) = (AtomicU64::new(0), AtomicU64::new(0));
        for _ in 0..20 {
            let buffer = a.next(&from_b).unwrap().expect("the peer keeps its share only");
            a.sent(buffer);
            assert!(b.could_come(buffer));
            b.keep(buffer);
            b.settle([&from_b, &from_a], |_| 0).unwrap();
        }
        assert_eq!(from_a.load(Ordering::Relaxed), 0);
        assert_eq!(b.mine.get().count_ones(), 2);
    }

    #[test]
    fn one_way_is_told_from_an_exchange() {
        let (a, b) = (Four::new(false), Four::new(true));
        let (from_a, from_b) = (AtomicU64::new(0), AtomicU64::new(0));
        let one_way = || {
            let buffer = a.next(&from_b).unwrap().unwrap();
            a.sent(buffer);
            b.keep(buffer);
            b.settle([&from_b, &from_a], |_| 0).unwrap();
        };
        assert!(!b.gives_back());
        for _ in 0..3 {
            one_way();
            assert!(b.gives_back());
        }
        b.sent(b.next(&from_a).unwrap().unwrap());
        assert!(!b.gives_back(), "what comes next goes out again");
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let (a, from_a, from_b) = (Four::new(false), AtomicU64::new(0), AtomicU64::new(0));
        a.sent(0);
        a.keep(2);
        let asked = Cell::new(0);
        let count = |again| {
            asked.set(asked.get() + 1);
            if again { 0 } else { 1 }
        };
        a.settle([&from_a, &from_b], count).unwrap();
        assert_eq!((asked.get(), from_a.load(Ordering::Relaxed)), (2, 0), "the peer has released it by now");
        a.settle([&from_a, &from_b], |_| 1).unwrap();
        assert_eq!(from_a.load(Ordering::Relaxed), 1 << 2);
        assert!(a.could_come(2), "it is the peer's again");
    }

    #[test]
    fn what_was_given_back_counts() {
        let (a, from_a, from_b) = (Four::new(false), AtomicU64::new(0), AtomicU64::new(0b01));
        a.sent(0);
        a.keep(2);
        a.settle([&from_a, &from_b], |_| 0).unwrap();
        assert_eq!(a.mine.get(), 0b11, "one came back, so one goes back");
        assert_eq!(from_a.load(Ordering::Relaxed), 1 << 2);
    }

    #[test]
    fn buffers_that_the_peer_does_not_have_are_refused() {
        let a = Four::new(false);
        assert!(!a.could_come(0) && !a.could_come(4) && !a.could_come(u32::MAX));
        a.sent(0);
        a.sent(1);
        for returned in [1 << 4, u64::MAX] {
            assert_eq!(a.next(&AtomicU64::new(returned)), Err(Forged));
        }
        assert_eq!(a.next(&AtomicU64::new(0b10)), Ok(Some(1)));
    }
}
