//! Messages that stay in the memory of the rank that sends them, and are answered there.
//!
//! ```text
//! lender                                               reader
//! lends a place, as message 7      ───────────────▶    adds what lies there to its own,
//!                                                      stores the sum there, and where it wants it
//! finds the sum where it wants it  ◀───────────────    answers: it is in the place of 7
//! ```
//! A line that the reader has only read costs its owner several times what a copy costs, when it is overwritten
//! next. So each line that is read there is stored, too, and migrates: with the answer, or as it is, where it is lent to
//! be read. What is more than caches hold has left them before it is overwritten: that is only read.
//!
//! A loan ends with its answer, or with its release where the reader answered elsewhere or not at all. A lender
//! that fails before does not wait, since the reader may be stopped in the middle of its answer: it takes the
//! pages back ([`Stretch::detach`]), and whatever is written late goes where nobody looks.

use std::array;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::memory::{Allocations, Stretch, View};
use crate::transport::Terms;
use crate::transport::shm::layout::HEADERS;

/// What a rank has lent to its peer, and what the peer has lent to it.
pub(super) struct Loans {
    /// How many messages are out: all that most messages ask for.
    count: Cell<u32>,
    ledger: Box<Ledger>,
}

struct Ledger {
    known: Arc<Allocations>,
    peer: u32,
    /// By the numbers of their messages, modulo the headers.
    out: [RefCell<Option<Loan>>; HEADERS],
    /// What the message that is being peeked lends.
    open: RefCell<Option<Stretch>>,
}

/// What was lent with a message.
struct Loan {
    number: u64,
    /// Whether an answer may come in its place.
    answerable: bool,
    stretch: Stretch,
}

impl Loans {
    pub(super) fn new(known: Arc<Allocations>, peer: u32) -> Self {
        let out = array::from_fn(|_| RefCell::default());
        let ledger = Box::new(Ledger { known, peer, out, open: RefCell::default() });
        Self { count: Cell::new(0), ledger }
    }

    /// The entry of a message's loan.
    fn entry(&self, number: u64) -> &RefCell<Option<Loan>> {
        &self.ledger.out[(number % HEADERS as u64) as usize]
    }

    /// Whether nothing is lent.
    #[inline]
    pub(super) fn none(&self) -> bool {
        self.count.get() == 0
    }

    /// Lends a view with message `number`, for which there is room in the ring; says what its header tells of it.
    /// Nothing where the peer cannot reach it, or an answer is still to come to the message that had this number's
    /// entry before.
    pub(super) fn lend(&self, view: View<'_>, terms: Terms<'_>, number: u64) -> Option<[u64; 2]> {
        let (whole, answerable) = match terms {
            Terms::Answer { whole } => (whole, true),
            Terms::Read { whole, .. } => (whole, false),
        };
        let mut entry = self.entry(number).borrow_mut();
        if entry.as_ref().is_some_and(|loan| loan.answerable) {
            return None;
        }
        let stretch = self.ledger.known.lend(view, whole, self.ledger.peer)?;
        let place = stretch.place();
        // What was only shown is over where there is room again.
        if entry.replace(Loan { number, answerable, stretch }).is_none() {
            self.count.set(self.count.get() + 1);
        }
        Some(place)
    }

    /// Where this rank's own message `number` lay, to which an answer of `len` bytes has come; nothing where it
    /// lent no such bytes.
    pub(super) fn answered(&self, number: u64, len: usize) -> Option<View<'_>> {
        let entry = self.entry(number).borrow();
        let loan = entry.as_ref().filter(|loan| loan.number == number && loan.answerable)?;
        let view = loan.stretch.view();
        // SAFETY: the loan, and with it the mapping, stays until the answer is released, or this link ends.
        (view.len() == len).then(|| unsafe { View::from_raw(view.as_ptr(), len) })
    }

    /// The answer to message `number` has been released.
    pub(super) fn end(&self, number: u64) {
        let mut entry = self.entry(number).borrow_mut();
        if entry.take_if(|loan| loan.number == number).is_some() {
            self.count.set(self.count.get() - 1);
        }
    }

    /// What the peer says that it had released when it sent what has been received by now: no answers to these
    /// can come any more.
    #[cold]
    pub(super) fn end_until(&self, released: u64) {
        self.end_where(|loan| loan.number <= released);
    }

    fn end_where(&self, is_over: impl Fn(&Loan) -> bool) {
        for entry in &self.ledger.out {
            if entry.borrow_mut().take_if(|loan| is_over(loan)).is_some() {
                self.count.set(self.count.get() - 1);
            }
        }
    }

    /// Whether the peer is done with all that is lent, where it has released so many messages.
    #[cold]
    pub(super) fn at_rest(&self, released: u64) -> bool {
        self.end_where(|loan| !loan.answerable && loan.number <= released);
        self.ledger.out.iter().all(|entry| entry.borrow().as_ref().is_none_or(|loan| loan.number <= released))
    }

    /// Makes all that the peer has not released unreachable to it; what cannot be so stays lent.
    #[cold]
    pub(super) fn take_back(&self, released: u64) {
        self.end_where(|loan| loan.number <= released || loan.stretch.detach().is_ok());
    }

    /// The `len` bytes that the peeked message lends, from a place; nothing where no peer could mean that.
    pub(super) fn borrow(&self, place: [u64; 2], len: usize) -> Option<View<'_>> {
        if !self.is_open(len) {
            *self.ledger.open.borrow_mut() = Some(self.ledger.known.borrow(place, len, self.ledger.peer)?);
        }
        Some(self.open(len))
    }

    /// Whether the peeked message lends `len` bytes, which have been looked at.
    pub(super) fn is_open(&self, len: usize) -> bool {
        self.ledger.open.borrow().as_ref().is_some_and(|open| open.view().len() == len)
    }

    /// These bytes.
    pub(super) fn open(&self, len: usize) -> View<'_> {
        let open = self.ledger.open.borrow();
        let view = open.as_ref().map_or_else(View::empty, |open| open.view().part(0..len));
        // SAFETY: the stretch, and with it the mapping, stays until the message is released, or this link ends.
        unsafe { View::from_raw(view.as_ptr(), view.len()) }
    }

    /// The peeked message is being released.
    pub(super) fn close(&self) {
        self.ledger.open.take();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;
    use crate::health::Deadline;
    use crate::kernel;
    use crate::memory::{Allocation, Bell, Part, Region};
    use crate::transport::shm::layout::PACKED;
    use crate::transport::shm::{WORTH_ANSWERING, link};
    use crate::transport::{Lent, Link, Size, Tag, Terms};

    const TAG: Tag = Tag { digest: 1, body: [2; 4] };
    const LEN: usize = 200_000;

    /// One of two ranks that have allocated `LEN` bytes each.
    struct Rank {
        link: Box<dyn Link>,
        part: Part,
        bell: Arc<Bell>,
    }

    impl Rank {
        /// Lends bytes of its part, to be answered there.
        fn lend(&self, view: View<'_>) -> Lent {
            self.link.lend(&[view], Terms::Answer { whole: self.part.view() }, &TAG).unwrap()
        }

        /// Lends bytes of its part, to be read.
        fn show(&self, view: View<'_>, size: Size) -> Lent {
            self.link.lend(&[view], Terms::Read { whole: self.part.view(), size }, &TAG).unwrap()
        }

        fn settled(&self) -> bool {
            self.link.settled().unwrap()
        }
    }

    fn pair() -> [Rank; 2] {
        let size = Allocation::size(LEN, 2).unwrap();
        let (mine, fd) = Region::create("kolo-test", size).unwrap();
        let theirs = Region::open(fd.as_fd(), size).unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        let join = |stream: UnixStream, region: Region, me: usize| {
            let part = Allocation::map(7, region, vec![0, 1], me, LEN);
            let known = Arc::<Allocations>::default();
            known.add(part.allocation());
            let (bell, loans) = (Bell::new().unwrap(), Loans::new(known, 1 - me as u32));
            let deadline = Deadline::after(Some(Duration::from_secs(20)));
            Rank { link: link(stream, me == 0, &bell, loans, deadline).unwrap(), part, bell }
        };
        std::thread::scope(|scope| {
            let low = scope.spawn(|| join(a, mine, 0));
            let high = join(b, theirs, 1);
            [low.join().unwrap(), high]
        })
    }

    fn fill(view: View<'_>, byte: u8) {
        kernel::copy(&[view], View::read(&vec![byte; view.len()]));
    }

    fn is_full_of(view: View<'_>, byte: u8) -> bool {
        let mut bytes = vec![0; view.len()];
        kernel::copy(&[View::write(&mut bytes)], view);
        bytes.iter().all(|&found| found == byte)
    }

    /// Answers the message that has come by filling its place.
    fn answer(rank: &Rank, byte: u8) {
        let len = rank.link.peek().unwrap().expect("it has come").payload.len();
        fill(rank.link.answer(len).unwrap().expect("there is room"), byte);
        rank.link.commit(len, &TAG).unwrap();
        rank.link.release().unwrap();
    }

    #[test]
    fn an_answer_comes_in_the_place_of_what_was_lent() {
        let [a, b] = pair();
        let place = a.part.view().part(4096..70_000);
        for turn in 1..50 {
            fill(place, turn);
            assert_eq!(a.lend(place), Lent::Yes);
            assert!(!a.settled(), "it may be written at any time");
            let came = b.link.peek().unwrap().expect("it has come").payload;
            assert!(is_full_of(came, turn) && came.len() == place.len());
            assert!(b.link.answer(came.len()).unwrap().unwrap().same_place(came));
            answer(&b, turn + 100);
            let answered = a.link.peek().unwrap().expect("it has come").payload;
            assert!(answered.same_place(place) && is_full_of(place, turn + 100));
            a.link.release().unwrap();
            assert!(a.settled());
        }
        assert!(is_full_of(a.part.view().part(0..4096), 0) && is_full_of(a.part.view().part(70_000..LEN), 0));
    }

    #[test]
    fn a_loan_that_is_answered_elsewhere_ends_with_its_release() {
        let [a, b] = pair();
        for turn in 0..20 {
            let place = a.part.view().part(0..80_000);
            fill(place, turn);
            assert_eq!(a.lend(place), Lent::Yes);
            assert!(is_full_of(b.link.peek().unwrap().unwrap().payload, turn));
            fill(b.link.reserve(80_000).unwrap().unwrap(), 200);
            b.link.commit(80_000, &TAG).unwrap();
            assert!(!a.settled());
            b.link.release().unwrap();
            assert!(a.settled());
            let came = a.link.peek().unwrap().unwrap().payload;
            assert!(is_full_of(came, 200) && !came.same_place(place));
            a.link.release().unwrap();
            // One that brings the news.
            b.link.reserve(0).unwrap().unwrap();
            b.link.commit(0, &TAG).unwrap();
            a.link.peek().unwrap().unwrap();
            a.link.release().unwrap();
        }
    }

    /// However few answers come, and whatever goes between.
    #[test]
    fn loans_that_nobody_answers_become_copies() {
        let [a, b] = pair();
        let place = a.part.view().part(0..80_000);
        let mut lent = Vec::new();
        for _ in 0..2 * HEADERS {
            lent.push(a.lend(place));
            if lent.last() == Some(&Lent::Yes) {
                b.link.peek().unwrap().unwrap();
                b.link.release().unwrap();
            } else {
                a.link.reserve(80_000).unwrap().expect("copies still go");
                a.link.commit(80_000, &TAG).unwrap();
                b.link.peek().unwrap().unwrap();
                b.link.release().unwrap();
            }
        }
        assert_eq!(lent, [[Lent::Yes; HEADERS], [Lent::Never; HEADERS]].concat());
        assert!(a.settled());
    }

    #[test]
    fn credit_counts_loans_too() {
        let [a, b] = pair();
        let place = a.part.view().part(0..70_000);
        for _ in 0..HEADERS {
            assert_eq!(a.lend(place), Lent::Yes);
        }
        assert_eq!(a.lend(place), Lent::Later);
        answer(&b, 1);
        assert_eq!(a.lend(place), Lent::Never, "an answer is still to be taken");
        a.link.peek().unwrap().unwrap();
        a.link.release().unwrap();
        assert_eq!(a.lend(place), Lent::Yes);
    }

    #[test]
    fn only_what_may_be_answered_there_is_lent() {
        let [a, b] = pair();
        let part = a.part.view();
        let whole = Terms::Answer { whole: part };
        let lend = |pieces: &[View<'_>], terms| a.link.lend(pieces, terms, &TAG).unwrap();
        let read = Terms::Read { whole: part, size: Size::Little };
        assert_eq!(lend(&[part.part(0..20_000)], read), Lent::Never, "caches hold all of it");
        assert_eq!(lend(&[part.part(0..70_000), part.part(80_000..150_000)], whole), Lent::Never);
        assert_eq!(lend(&[part.part(0..WORTH_ANSWERING - 1)], whole), Lent::Never, "copies cost less");
        let huge = Terms::Read { whole: part, size: Size::Huge };
        assert_eq!(lend(&[part.part(0..PACKED)], huge), Lent::Never, "it is packed");
        let ordinary = vec![0; 70_000];
        let whole = Terms::Answer { whole: View::read(&ordinary) };
        assert_eq!(lend(&[View::read(&ordinary)], whole), Lent::Never);
        assert!(b.link.peek().unwrap().is_none() && a.settled());
    }

    /// Though the reader never sends anything, by which its lender would learn more.
    #[test]
    fn what_is_much_is_shown_again_and_again() {
        let [a, b] = pair();
        let place = a.part.view().part(0..50_000);
        for turn in 0..5 * HEADERS as u8 {
            let size = if turn % 2 == 0 { Size::Much } else { Size::Huge };
            fill(place, turn);
            assert_eq!(a.show(place, size), Lent::Yes);
            assert!(!a.settled());
            let came = b.link.peek().unwrap().expect("it has come").payload;
            assert!(is_full_of(came, turn) && came.is_claimed() == (size == Size::Much));
            b.link.release().unwrap();
            assert!(a.settled());
        }
        for turn in 0..HEADERS {
            assert_eq!(a.show(place, Size::Huge), Lent::Yes, "{turn}");
        }
        assert_eq!(a.show(place, Size::Huge), Lent::Later, "loans count as messages");
    }

    /// The peer may walk a plan by which it answers in place what is lent for that.
    #[test]
    fn nobody_answers_in_the_place_of_what_is_shown() {
        let [a, b] = pair();
        let place = a.part.view().part(0..50_000);
        fill(place, 1);
        assert_eq!(a.show(place, Size::Huge), Lent::Yes);
        let came = b.link.peek().unwrap().expect("it has come").payload;
        let room = b.link.answer(came.len()).unwrap().expect("there is room");
        assert!(!room.same_place(came));
        fill(room, 2);
        b.link.commit(50_000, &TAG).unwrap();
        b.link.release().unwrap();
        assert!(is_full_of(a.link.peek().unwrap().unwrap().payload, 2) && is_full_of(place, 1));
        a.link.release().unwrap();
        assert!(a.settled());
    }

    #[test]
    fn who_fails_takes_back_what_is_being_read() {
        let [a, b] = pair();
        let place = a.part.view().part(0..100_000);
        fill(a.part.view(), 1);
        assert_eq!(a.show(place, Size::Huge), Lent::Yes);
        let open = b.link.peek().unwrap().unwrap().payload;
        a.link.fail();
        assert!(a.settled(), "nobody is waited for");
        fill(a.part.view(), 2);
        assert!(is_full_of(open, 1), "the reader still finds what it was shown");
    }

    #[test]
    fn who_fails_takes_back_what_is_being_written() {
        for peeked in [false, true] {
            let [a, b] = pair();
            let place = a.part.view().part(100..90_000);
            fill(a.part.view(), 1);
            assert_eq!(a.lend(place), Lent::Yes);
            let open = if peeked { b.link.peek().unwrap() } else { None };
            a.link.fail();
            assert!(a.settled(), "nobody is waited for");
            assert!(is_full_of(a.part.view(), 1));
            fill(a.part.view(), 2);
            // The other goes on as if nothing had happened.
            if let Some(open) = open {
                fill(open.payload, 3);
            }
            answer(&b, 4);
            assert!(is_full_of(a.part.view(), 2), "a late writer");
            assert_eq!(b.link.alive().unwrap_err().kind(), Kind::PeerLost);
        }
    }

    #[test]
    fn a_peer_that_leaves_its_answer_out_is_told() {
        let [a, b] = pair();
        assert_eq!(a.lend(a.part.view().part(0..70_000)), Lent::Yes);
        b.link.fail();
        assert_eq!(a.link.settled().unwrap_err().kind(), Kind::PeerLost);
        a.link.fail();
        assert!(a.settled());
        a.bell.cancel();
    }
}
