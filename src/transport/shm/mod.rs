//! Ranks that are processes of one host.
//!
//! A link is one memfd, made by the lower rank and handed over a UNIX stream, which then stays open: its
//! end is how a rank learns that its peer's process died.
//!
//! ```text
//! board of the lower rank   } a page each: what it has released and returned, whether it is still there,
//! board of the higher rank  } the tags of what it sends
//! ring from low to high     } HEADERS headers each
//! ring from high to low     }
//! buffers                   travel with messages (`pool.rs`)
//!
//! header:  number  digest  len, buffer, news  up to 104 bytes of payload      two neighbouring lines
//! ```
//!
//! So a message of up to 40 bytes crosses in one line, one of up to 104 in two that cores fetch together; a
//! larger one lies in a buffer, whose owner is the reader from then on, or stays where it is, if it is to be
//! answered there or is much (`loan.rs`). The news are how many messages of the reader's were released: in an exchange
//! nobody reads the counters. Tags are not in the header: the reader wants them only when digests differ, and
//! where they are, their lines never leave the writer's cache.
//!
//! The peer is no more trusted than its last write: whatever is read here is read once, then checked.

mod hello;
mod layout;
mod loan;
#[cfg(any(test, fuzzing))]
pub(crate) mod probes;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fifo::{CREDIT, Forged, Reader, SLOT, Writer};
use super::pool::Pool;
use super::{
    Handover, Lent, Limits, Link, Meeting, Message, Reason, Size, Tag, Terms, Transport, Watch, not_reserved,
    send_copy, too_long,
};
use crate::CHECKED;
use crate::bootstrap::Node;
use crate::error::{Error, Result};
use crate::health::Deadline;
use crate::kernel;
use crate::memory::{Allocations, Bell, Ringer, Shared, View};
use crate::sys::os;
use crate::topology::{Cost, Handling};
use hello::gone;
pub(super) use hello::{receive_descriptors, receive_hello, send_hello};
use layout::{
    ANSWERED, About, BUFFERS, Board, CAP, HANDED, HEADERS, Header, LENT, Layout, PACKED, SHOWN, forged,
};
use loan::Loans;

/// Where a reserved message lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// In its header.
    Packed,
    /// In a buffer that this rank has.
    Own(u32),
    /// In the buffer of the message that is being peeked.
    Answer(u32),
    /// In memory that the peer lends: where the message that is being peeked lies.
    Borrowed,
}

struct ShmLink {
    memory: Shared<Layout>,
    /// Whether this is the higher rank.
    higher: bool,
    writer: Writer<HEADERS>,
    reader: Reader<HEADERS>,
    pool: Pool<BUFFERS, CAP>,
    loans: Loans,
    /// The length that was reserved, and where.
    reserved: Cell<Option<(usize, Room)>>,
    /// What the header of the peeked message said: read once, for the peer may write there again.
    peeked: Cell<Option<About>>,
    /// The number of this rank's next message when it last looked at one: while that stays, messages come one way,
    /// and the next may be there already.
    next_at_last_peek: Cell<u64>,
    /// Whether that message's buffer, or what it lends, has gone back with an answer.
    answered: Cell<bool>,
    /// Rings the peer.
    ringer: Ringer,
    /// Ends with the peer.
    stream: UnixStream,
}

/// What crossing costs when the cores share a cache: as measured; what a core reads and writes is not in it.
const COST: Cost = Cost { latency_ns: 100, bytes_per_us: 200_000, handling: Handling::NONE };

/// Below this many bytes a reader's extra stores cost more than they spare the writer.
const WORTH_CLAIMING: usize = 2 << 10;

/// Below this many bytes lending them to be answered costs more than two copies; why is not known: storing to what was
/// answered, by whole lines, before the lender goes on changes nothing. (2 ranks of Zen 4, all-reduce in memory allocated
/// together, copied and lent: 1.7 and 2.3 us by 16 KiB, 2.6 and 2.4 by 32, 4.8 and 3.5 by 64; with the cores apart 3.8 and 8.0, 7.5
/// and 10.9, 12.1 and 13.8, by 128 KiB 22 and 20; 2026-11-28, `benches/versus/run`.)
const WORTH_ANSWERING: usize = 64 << 10;

/// Which header is fetched while a message is read: so many may be on their way from the peer's core at once.
const AHEAD: usize = 2;

/// Begins to fetch what will be read soon.
#[inline(always)]
fn prefetch(header: &Header) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, about memory that is there.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(header).cast());
    }
}

/// Connects processes of one host.
#[derive(Debug)]
pub struct Shm;

impl Transport for Shm {
    fn name(&self) -> &'static str {
        "shm"
    }

    fn reach(&self, me: &Node, peer: &Node) -> Result<Cost, Reason> {
        if !me.shares_loopback(peer) {
            return Err("it is on another host, or in another network namespace".to_owned());
        }
        // Descriptors go to the same user only.
        if me.user != peer.user {
            return Err(format!("one runs as user {}, the other as {}", me.user, peer.user));
        }
        Ok(COST)
    }

    fn slot(&self) -> usize {
        SLOT
    }

    fn connect(&self, meeting: &Meeting<'_>) -> Result<Box<dyn Link>> {
        let stream = meeting.door.unix(meeting)?;
        let loans = Loans::new(meeting.allocations.clone(), meeting.peer as u32);
        link(stream, meeting.me < meeting.peer, meeting.bell, loans, meeting.deadline)
    }

    fn shares_allocations(&self) -> bool {
        true
    }

    fn handover(&self) -> Option<&dyn Handover> {
        Some(self)
    }
}

/// One end of a link over a stream to a process of the same host, which makes the other. One of them, the
/// `lower`, provides the memory. `bell` is what this rank sleeps on.
///
/// # Errors
/// `Refused` where the peer's build differs or it sends what no peer would, `PeerLost` where the stream ends,
/// `Deadline`, `System`.
pub fn link_over(stream: UnixStream, lower: bool, bell: &Bell, deadline: Deadline) -> Result<Box<dyn Link>> {
    // Between ranks that have allocated nothing together.
    let loans = Loans::new(Arc::<Allocations>::default(), u32::MAX);
    link(stream, lower, bell, loans, deadline)
}

fn link(
    stream: UnixStream,
    lower: bool,
    bell: &Bell,
    loans: Loans,
    deadline: Deadline,
) -> Result<Box<dyn Link>> {
    let [page, event] = bell.descriptors();
    let (memory, ringer) = if lower {
        let (memory, fd) = Shared::create("kolo-link")?;
        send_hello(&stream, &[page, event, fd.as_fd()])?;
        let [page, event] = receive_hello(&stream, deadline)?;
        (memory, Ringer::from_descriptors(page, event)?)
    } else {
        send_hello(&stream, &[page, event])?;
        let [page, event, fd] = receive_hello(&stream, deadline)?;
        (Shared::open(fd.as_fd())?, Ringer::from_descriptors(page, event)?)
    };
    let (writer, reader) = (Writer::new(), Reader::new());
    Ok(Box::new(ShmLink {
        memory,
        higher: !lower,
        writer,
        reader,
        pool: Pool::new(!lower),
        loans,
        reserved: Cell::new(None),
        peeked: Cell::new(None),
        next_at_last_peek: Cell::new(0),
        answered: Cell::new(false),
        ringer,
        stream,
    }))
}

impl ShmLink {
    #[inline]
    fn mine(&self) -> &Board {
        &self.memory.boards[usize::from(self.higher)]
    }

    #[inline]
    fn theirs(&self) -> &Board {
        &self.memory.boards[usize::from(!self.higher)]
    }

    /// The header of the next message to send.
    #[inline]
    fn free_header(&self) -> Result<Option<usize>> {
        match self.writer.room(&self.theirs().released) {
            Ok(Some(slot)) => Ok(Some(slot)),
            Ok(None) => self.theirs().presence.check().map(|()| None),
            Err(Forged) => Err(forged("a credit")),
        }
    }

    #[inline]
    fn outgoing(&self, slot: usize) -> &Header {
        &self.memory.rings[usize::from(self.higher)][slot]
    }

    /// The header of the next message to receive.
    #[inline]
    fn incoming(&self) -> &Header {
        &self.memory.rings[usize::from(!self.higher)][self.reader.slot()]
    }

    /// What the header of a message that has come says, checked.
    #[inline]
    fn about(&self, header: &Header) -> Result<About> {
        let about = About::of(header.about.load(Ordering::Relaxed));
        let len = about.len as usize;
        if len > SLOT {
            return Err(forged("a length"));
        }
        if len > PACKED && !self.pool.could_come(about.buffer) && !about.is_lent() {
            return Err(forged("a buffer"));
        }
        Ok(about)
    }

    /// The first `len` bytes of a header's packed payload, or of a buffer.
    #[inline]
    fn place(&self, header: &Header, room: Room, len: usize) -> View<'_> {
        let start = match room {
            Room::Packed => header.packed.get().cast(),
            Room::Own(buffer) | Room::Answer(buffer) => {
                self.memory.buffers[buffer as usize].payload.get().cast()
            }
            Room::Borrowed => return self.loans.open(len),
        };
        // The protocol of headers and buffers keeps the ranks apart.
        // SAFETY: as many bytes lie there (whoever calls has compared), mapped as long as `self`.
        unsafe { View::from_raw(start, len) }
    }

    /// The payload of a message that lies in what one rank lends the other.
    #[cold]
    fn lent(&self, header: &Header, about: About) -> Result<View<'_>> {
        let (words, len) = (header.words(), about.len as usize);
        match about.buffer {
            LENT => self.loans.borrow(words, len).ok_or_else(|| forged("a loan")),
            SHOWN => self.loans.borrow(words, len).map(View::read_only).ok_or_else(|| forged("a loan")),
            HANDED => self.loans.borrow(words, len).map(View::claimed).ok_or_else(|| forged("a loan")),
            _ => self.loans.answered(words[0], len).ok_or_else(|| forged("an answer")),
        }
    }

    /// Such a message is about to be released.
    #[cold]
    fn let_go(&self, about: About) {
        match about.buffer {
            LENT | SHOWN | HANDED => {
                self.answered.set(false);
                self.loans.close();
            }
            _ => self.loans.end(self.incoming().words()[0]),
        }
    }

    /// Room for a message: in its header, in that of the peeked message where that is `answered`, or in one of
    /// this rank's buffers.
    #[inline]
    fn reserve_in(&self, len: usize, answered: Option<Room>) -> Result<Option<View<'_>>> {
        if len > SLOT {
            return Err(too_long(len, SLOT));
        }
        let Some(slot) = self.free_header()? else { return Ok(None) };
        let room = match (answered, self.reserved.get()) {
            _ if len <= PACKED => Room::Packed,
            (Some(room), _) => room,
            (None, Some((reserved, room @ Room::Own(_)))) if reserved == len => room,
            (None, _) => match self.pool.next(&self.theirs().returned) {
                Ok(Some(buffer)) => Room::Own(buffer),
                Ok(None) => return self.theirs().presence.check().map(|()| None),
                Err(Forged) => return Err(forged("a buffer")),
            },
        };
        self.reserved.set(Some((len, room)));
        Ok(Some(self.place(self.outgoing(slot), room, len)))
    }

    /// Sends what was written, or lent: fills the header in and shows it.
    #[inline]
    fn show(&self, index: usize, len: usize, buffer: u32, tag: &Tag) {
        if CHECKED {
            for (word, value) in self.mine().bodies[index].iter().zip(tag.body) {
                word.store(value, Ordering::Relaxed);
            }
        }
        let about = About { len: len as u32, buffer, news: self.reader.released() as u32 };
        let header = self.outgoing(index);
        header.digest.store(tag.digest, Ordering::Relaxed);
        header.about.store(about.word(), Ordering::Relaxed);
        self.writer.publish(&header.number, buffer < BUFFERS && len > PACKED);
        self.ringer.ring();
    }

    /// How many messages the peer has released.
    fn released(&self) -> u64 {
        self.theirs().released.load(Ordering::Acquire)
    }

    /// Whether the peer is done with what this rank has lent.
    #[cold]
    fn at_rest(&self) -> Result<bool> {
        match self.loans.at_rest(self.released()) {
            true => Ok(true),
            false if self.mine().presence.here() => self.theirs().presence.check().map(|()| false),
            // What could not be taken back, only the end of the peer's process ends.
            false => Ok(os::ended(&self.stream)),
        }
    }

    /// Gives buffers back where this rank has more than its share.
    #[inline]
    fn settle_buffers(&self) -> Result<()> {
        let on_their_way = |look: bool| self.writer.on_their_way(look.then_some(&self.theirs().released));
        let returned = [&*self.mine().returned, &*self.theirs().returned];
        self.pool.settle(returned, on_their_way).map_err(|Forged| forged("a buffer"))
    }
}

impl Link for ShmLink {
    fn limits(&self) -> Limits {
        Limits { slot: SLOT, credit: CREDIT, receives: false }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        self.reserve_in(len, None)
    }

    fn answer(&self, len: usize) -> Result<Option<View<'_>>> {
        let Some(about) = self.peeked.get() else { return Err(Error::usage("answer without peek")) };
        let room = match about.buffer {
            _ if about.len as usize <= PACKED || self.answered.get() => None,
            LENT => self.loans.is_open(len).then_some(Room::Borrowed),
            SHOWN | HANDED | ANSWERED => None,
            buffer => Some(Room::Answer(buffer)),
        };
        self.reserve_in(len, room)
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        let room = match self.reserved.take() {
            Some((reserved, room)) if reserved == len => room,
            _ => return Err(not_reserved(len)),
        };
        let index = self.free_header()?.ok_or_else(|| not_reserved(len))?;
        let buffer = match room {
            Room::Packed => 0,
            Room::Own(buffer) | Room::Answer(buffer) => buffer,
            Room::Borrowed => {
                self.outgoing(index).set_words([self.reader.released() + 1, 0]);
                ANSWERED
            }
        };
        self.show(index, len, buffer, tag);
        match room {
            Room::Packed => {}
            Room::Own(buffer) => self.pool.sent(buffer),
            Room::Answer(_) | Room::Borrowed => self.answered.set(true),
        }
        Ok(())
    }

    fn send(&self, payload: View<'_>, tag: &Tag) -> Result<bool> {
        let len = payload.len();
        if len > PACKED {
            return send_copy(self, payload, tag);
        }
        let Some(index) = self.free_header()? else { return Ok(false) };
        self.reserved.set(None);
        kernel::copy(&[self.place(self.outgoing(index), Room::Packed, len)], payload);
        self.show(index, len, 0, tag);
        Ok(true)
    }

    #[inline]
    fn peek(&self) -> Result<Option<Message<'_>>> {
        let header = self.incoming();
        if !self.reader.arrived(&header.number) {
            if !CHECKED {
                return Ok(None);
            }
            let come = || self.reader.arrived(&header.number);
            return self.theirs().presence.check_after(come).map(|()| None);
        }
        let about = self.about(header)?;
        let len = about.len as usize;
        let payload = match len {
            ..=PACKED => self.place(header, Room::Packed, len),
            _ if about.is_lent() => self.lent(header, about)?,
            WORTH_CLAIMING.. if self.pool.gives_back() => {
                self.place(header, Room::Own(about.buffer), len).claimed()
            }
            _ => self.place(header, Room::Own(about.buffer), len),
        };
        self.peeked.set(Some(about));
        if self.next_at_last_peek.replace(self.writer.number()) == self.writer.number() {
            prefetch(&self.memory.rings[usize::from(!self.higher)][(self.reader.slot() + AHEAD) % HEADERS]);
        }
        Ok(Some(Message { digest: header.digest.load(Ordering::Relaxed), payload }))
    }

    fn body(&self) -> [u64; 4] {
        self.theirs().bodies[self.reader.slot()].each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn release(&self) -> Result<()> {
        let Some(about) = self.peeked.take() else { return Err(Error::usage("release without peek")) };
        let large = about.len as usize > PACKED;
        let lent = large && about.is_lent();
        if lent {
            self.let_go(about);
        }
        self.writer.hear(about.news);
        let says = self.reader.release(&self.mine().released, large);
        if large && !lent {
            if !self.answered.take() {
                self.pool.keep(about.buffer);
            }
            self.settle_buffers()?;
        }
        if !self.loans.none() {
            self.loans.end_until(self.writer.meant(about.news));
        }
        if says {
            self.ringer.ring();
        }
        Ok(())
    }

    fn lend(&self, pieces: &[View<'_>], terms: Terms<'_>, tag: &Tag) -> Result<Lent> {
        let &[piece] = pieces else { return Ok(Lent::Never) };
        let buffer = match terms {
            Terms::Answer { .. } if piece.len() < WORTH_ANSWERING => return Ok(Lent::Never),
            Terms::Answer { .. } => LENT,
            Terms::Read { size: Size::Little, .. } => return Ok(Lent::Never),
            Terms::Read { size: Size::Much, .. } => HANDED,
            Terms::Read { size: Size::Huge, .. } => SHOWN,
        };
        if !(PACKED + 1..=SLOT).contains(&piece.len()) {
            return Ok(Lent::Never);
        }
        let Some(index) = self.free_header()? else { return Ok(Lent::Later) };
        let Some(place) = self.loans.lend(piece, terms, self.writer.number()) else { return Ok(Lent::Never) };
        self.reserved.set(None);
        self.outgoing(index).set_words(place);
        self.show(index, piece.len(), buffer, tag);
        Ok(Lent::Yes)
    }

    fn settled(&self) -> Result<bool> {
        if self.loans.none() { Ok(true) } else { self.at_rest() }
    }

    fn alive(&self) -> Result<()> {
        self.theirs().presence.check()?;
        if os::ended(&self.stream) { Err(gone()) } else { Ok(()) }
    }

    fn watch(&self) -> Option<Watch> {
        None
    }

    fn lifeline(&self) -> Option<Watch> {
        // Nobody writes to it any more: it stirs when it ends.
        Some(Watch { fd: self.stream.as_raw_fd(), write: false, unsent: false, within: None })
    }

    fn fail(&self) {
        self.mine().presence.fail();
        self.ringer.ring();
        self.loans.take_back(self.released());
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        self.mine().presence.leave();
        self.ringer.ring();
        self.loans.take_back(self.released());
    }
}
