//! Ranks that are processes of one host.
//!
//! A link is one memfd, made by the lower rank and handed over a UNIX stream, which then stays open: its
//! end is how a rank learns that its peer's process died.
//!
//! ```text
//! board of the lower rank   } a page each: what it has released and returned, whether it is still there,
//! board of the higher rank  } the tags of what it sends
//! ring from low to high     } CREDIT headers each
//! ring from high to low     }
//! buffers                   travel with messages (`pool.rs`)
//!
//! header:  number  digest  len, buffer, news  up to 104 bytes of payload      two neighbouring lines
//! ```
//!
//! So a message of up to 40 bytes crosses in one line, one of up to 104 in two that cores fetch together; a
//! larger one lies in a buffer, whose owner is the reader from then on. The news are how many messages of the
//! reader's were released: in an exchange nobody reads the counters. Tags are not in the header: the reader
//! wants them only when digests differ, and where they are, their lines never leave the writer's cache.
//!
//! The peer is no more trusted than its last write: whatever is read here is read once, then checked.

mod hello;
mod layout;

use std::cell::Cell;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use super::fifo::{CREDIT, Forged, Reader, SLOT, Writer};
use super::pool::Pool;
use super::{
    Handover, Limits, Link, Meeting, Message, Reason, Tag, Transport, Watch, not_reserved, too_long,
};
use crate::bootstrap::Node;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::memory::{Bell, Ringer, Shared, View};
use crate::sys::os;
use crate::topology::Cost;
use hello::{gone, receive_hello};
pub(super) use hello::{receive_descriptors, send_hello};
use layout::{About, BUFFERS, Board, CAP, Header, Layout, PACKED};

/// Where a reserved message lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// In its header.
    Packed,
    /// In a buffer that this rank has.
    Own(u32),
    /// In the buffer of the message that is being peeked.
    Answer(u32),
}

struct ShmLink {
    memory: Shared<Layout>,
    /// Whether this is the higher rank.
    higher: bool,
    writer: Writer<CREDIT>,
    reader: Reader<CREDIT>,
    pool: Pool<BUFFERS, CAP>,
    /// The length that was reserved, and where.
    reserved: Cell<Option<(usize, Room)>>,
    /// Whether the peeked message's buffer has gone back with an answer.
    answered: Cell<bool>,
    /// Rings the peer.
    ringer: Ringer,
    /// Ends with the peer.
    stream: UnixStream,
}

/// What crossing costs when the cores share a cache: as measured; what a core reads and writes is not in it.
const COST: Cost = Cost { latency_ns: 100, bytes_per_us: 200_000 };

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
        link_over(stream, meeting.me < meeting.peer, meeting.bell, meeting.deadline)
    }

    fn handover(&self) -> Option<&dyn Handover> {
        Some(self)
    }
}

/// One end of a link over a stream to a process of the same host, which makes the other. One of them, the
/// `lower`, provides the memory. `bell` is what this rank sleeps on.
///
/// # Errors
/// [`Kind::Refused`] where the peer's build differs or it sends what no peer would, [`Kind::PeerLost`]
/// where the stream ends, [`Kind::Deadline`], [`Kind::System`].
pub fn link_over(stream: UnixStream, lower: bool, bell: &Bell, deadline: Deadline) -> Result<Box<dyn Link>> {
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
        reserved: Cell::new(None),
        answered: Cell::new(false),
        ringer,
        stream,
    }))
}

#[cold]
fn forged(what: &str) -> Error {
    Error::new(Kind::PeerLost, format!("it wrote {what} into shared memory that no rank could mean"))
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
        if len > PACKED && !self.pool.could_come(about.buffer) {
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
        };
        // SAFETY: as many bytes lie there (whoever calls has compared), mapped as long as `self`; the
        // protocol of headers and buffers keeps the ranks apart.
        unsafe { View::from_raw(start, len) }
    }

    /// Room for a message: in its header, in the buffer of the peeked message where that is `answered`, or
    /// in one of this rank's.
    #[inline]
    fn reserve_in(&self, len: usize, answered: Option<u32>) -> Result<Option<View<'_>>> {
        if len > SLOT {
            return Err(too_long(len, SLOT));
        }
        let Some(slot) = self.free_header()? else { return Ok(None) };
        let room = match (answered, self.reserved.get()) {
            _ if len <= PACKED => Room::Packed,
            (Some(buffer), _) => Room::Answer(buffer),
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
        Limits { slot: SLOT, credit: CREDIT, lends: false }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        self.reserve_in(len, None)
    }

    fn answer(&self, len: usize) -> Result<Option<View<'_>>> {
        let header = self.incoming();
        if !self.reader.arrived(&header.number) {
            return Err(Error::usage("answer without peek"));
        }
        let about = self.about(header)?;
        let travelled = about.len as usize > PACKED && !self.answered.get();
        self.reserve_in(len, travelled.then_some(about.buffer))
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        let room = match self.reserved.take() {
            Some((reserved, room)) if reserved == len => room,
            _ => return Err(not_reserved(len)),
        };
        let index = self.free_header()?.ok_or_else(|| not_reserved(len))?;
        for (word, value) in self.mine().bodies[index].iter().zip(tag.body) {
            word.store(value, Ordering::Relaxed);
        }
        let buffer = match room {
            Room::Packed => 0,
            Room::Own(buffer) | Room::Answer(buffer) => buffer,
        };
        let about = About { len: len as u32, buffer, news: self.reader.released() as u32 };
        let header = self.outgoing(index);
        header.digest.store(tag.digest, Ordering::Relaxed);
        header.about.store(about.word(), Ordering::Relaxed);
        self.writer.publish(&header.number);
        self.ringer.ring();
        match room {
            Room::Packed => {}
            Room::Own(buffer) => self.pool.sent(buffer),
            Room::Answer(_) => self.answered.set(true),
        }
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Result<Option<Message<'_>>> {
        let header = self.incoming();
        if !self.reader.arrived(&header.number) {
            let come = || self.reader.arrived(&header.number);
            return self.theirs().presence.check_after(come).map(|()| None);
        }
        let about = self.about(header)?;
        let len = about.len as usize;
        let room = if len <= PACKED { Room::Packed } else { Room::Own(about.buffer) };
        let digest = header.digest.load(Ordering::Relaxed);
        Ok(Some(Message { digest, payload: self.place(header, room, len) }))
    }

    fn body(&self) -> [u64; 4] {
        self.theirs().bodies[self.reader.slot()].each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn release(&self) -> Result<()> {
        let header = self.incoming();
        if !self.reader.arrived(&header.number) {
            return Err(Error::usage("release without peek"));
        }
        let about = self.about(header)?;
        self.writer.hear(about.news);
        self.reader.release(&self.mine().released);
        if about.len as usize > PACKED {
            if !self.answered.take() {
                self.pool.keep(about.buffer);
            }
            self.settle_buffers()?;
        }
        self.ringer.ring();
        Ok(())
    }

    fn lend(&self, _pieces: &[View<'_>], _tag: &Tag) -> Result<bool> {
        Ok(false)
    }

    fn settled(&self) -> Result<bool> {
        Ok(true)
    }

    fn alive(&self) -> Result<()> {
        self.theirs().presence.check()?;
        if os::ended(&self.stream) { Err(gone()) } else { Ok(()) }
    }

    fn watch(&self) -> Option<Watch> {
        None
    }

    fn fail(&self) {
        self.mine().presence.fail();
        self.ringer.ring();
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        self.mine().presence.leave();
        self.ringer.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::thread;
    use std::time::Duration;

    use super::hello::HELLO;
    use super::*;

    const TAG: Tag = Tag { digest: 1, body: [2; 4] };

    fn soon() -> Deadline {
        Deadline::after(Some(Duration::from_secs(20)))
    }

    /// A link, as the higher rank has it, to a peer that this test plays by hand.
    fn played() -> (Box<dyn Link>, Shared<Layout>, UnixStream) {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let (memory, fd) = Shared::<Layout>::create("kolo-test").unwrap();
        let bell = Bell::new().unwrap();
        let [page, event] = bell.descriptors();
        send_hello(&mine, &[page, event, fd.as_fd()]).unwrap();
        (link_over(theirs, false, &bell, soon()).unwrap(), memory, mine)
    }

    #[test]
    fn headers_that_no_rank_could_mean_are_refused() {
        let (link, memory, _stream) = played();
        let header = &memory.rings[0][1];
        header.number.store(1, Ordering::Release);
        let (slot, theirs, mine) = (SLOT as u32, 0, BUFFERS / 2);
        let cases = [
            (slot + 1, theirs, "a length"),
            (u32::MAX, theirs, "a length"),
            (slot, mine, "a buffer"),
            (slot, BUFFERS, "a buffer"),
            (PACKED as u32 + 1, 255, "a buffer"),
        ];
        for (len, buffer, what) in cases {
            header.about.store(About { len, buffer, news: 0 }.word(), Ordering::Relaxed);
            for error in [link.peek().unwrap_err(), link.release().unwrap_err()] {
                assert_eq!(error.kind(), Kind::PeerLost);
                assert!(error.to_string().contains(&format!("wrote {what}")), "{error}");
            }
        }
        // News that cannot be are no news.
        header.about.store(About { len: slot, buffer: theirs, news: 99 }.word(), Ordering::Relaxed);
        assert_eq!(link.peek().unwrap().unwrap().payload.len(), SLOT);
        link.release().unwrap();
    }

    #[test]
    fn buffers_that_the_peer_cannot_return_are_refused() {
        let (link, memory, _stream) = played();
        memory.boards[0].returned.store(1 << BUFFERS, Ordering::Release);
        for number in 0..u64::from(BUFFERS / 2) {
            link.reserve(SLOT).unwrap().unwrap();
            link.commit(SLOT, &TAG).unwrap();
            memory.boards[0].released.store(number + 1, Ordering::Release);
        }
        assert!(link.reserve(SLOT).unwrap_err().to_string().contains("wrote a buffer"));
    }

    #[test]
    fn an_answer_goes_back_in_the_buffer_that_came() {
        let (link, memory, _stream) = played();
        let header = &memory.rings[0][1];
        header.about.store(About { len: 1000, buffer: 3, news: 0 }.word(), Ordering::Relaxed);
        header.number.store(1, Ordering::Release);
        let came = link.peek().unwrap().unwrap().payload;
        let answer = link.answer(1000).unwrap().unwrap();
        assert!(answer.same_place(came));
        link.commit(1000, &TAG).unwrap();
        link.release().unwrap();
        let sent = About::of(memory.rings[1][1].about.load(Ordering::Relaxed));
        assert_eq!((sent.len, sent.buffer), (1000, 3));
        assert!(!link.reserve(1000).unwrap().unwrap().same_place(came), "it is the peer's again");
    }

    #[test]
    fn credits_that_nobody_earned_are_refused() {
        let (link, memory, _stream) = played();
        for _ in 0..CREDIT {
            link.reserve(8).unwrap().unwrap();
            link.commit(8, &TAG).unwrap();
        }
        memory.boards[0].released.store(CREDIT as u64 + 1, Ordering::Release);
        assert!(link.reserve(8).unwrap_err().to_string().contains("wrote a credit"));
        memory.boards[0].released.store(1, Ordering::Release);
        assert!(link.reserve(8).unwrap().is_some());
    }

    #[test]
    fn numbers_out_of_turn_are_no_messages() {
        let (link, memory, _stream) = played();
        for number in [2, CREDIT as u64 + 1, u64::MAX] {
            memory.rings[0][1].number.store(number, Ordering::Release);
            assert!(link.peek().unwrap().is_none());
        }
    }

    #[test]
    fn a_peer_whose_stream_ends_is_gone() {
        let (link, _memory, stream) = played();
        link.alive().unwrap();
        drop(stream);
        let error = link.alive().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::PeerLost, "its process is gone"));
    }

    /// What the lower rank says of a peer that greets it by `greet`.
    fn greeted<R>(greet: impl FnOnce(UnixStream) -> R) -> Error {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let deadline = Deadline::after(Some(Duration::from_millis(200)));
        let lower = thread::spawn(move || link_over(mine, true, &Bell::new().unwrap(), deadline).err());
        let _kept = greet(theirs);
        lower.join().unwrap().unwrap()
    }

    #[test]
    fn strange_greetings_are_refused() {
        let bell = Bell::new().unwrap();
        let [page, event] = bell.descriptors();
        let hello = HELLO.map(u64::to_ne_bytes);

        let send = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
            greeted(|stream| {
                os::send_with(&stream, bytes, fds).unwrap();
                stream
            })
        };
        let error = send(&[7; 24], &[page, event]);
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("use one build"), "{error}");

        let error = send(hello.as_flattened(), &[page]);
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("1 descriptors instead of 2"), "{error}");

        // An eventfd is no memory.
        let error = send(hello.as_flattened(), &[event, page]);
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("cannot be trusted"), "{error}");
    }

    #[test]
    fn a_peer_that_ends_or_stays_silent_is_said() {
        assert_eq!(greeted(drop).kind(), Kind::PeerLost);
        assert_eq!(greeted(|stream| stream).kind(), Kind::Deadline);
    }
}
