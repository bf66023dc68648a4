//! Ranks that are processes of one host.
//!
//! A link is one memfd, made by the lower rank and handed over a UNIX stream, which then stays open: its
//! end is how a rank learns that its peer's process died.
//!
//! ```text
//! board of the lower rank   } a page each: what it has released, whether it is still there,
//! board of the higher rank  } the tags of what it sends
//! ring from low to high     } CREDIT slots each
//! ring from high to low     }
//!
//! slot:  number  digest  len  up to 40 bytes of payload | larger payloads, from the next line on
//!        `------------- one cache line --------------'
//! ```
//!
//! So a message of up to 40 bytes crosses in one line. Tags are not in it: the reader wants them only when
//! digests differ, and where they are, their lines never leave the writer's cache.
//!
//! The peer is no more trusted than its last write: whatever is read here is read once, then checked.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fifo::{Apart, CREDIT, Forged, Reader, SLOT, Writer};
use super::presence::Presence;
use super::{
    Handover, Limits, Link, Meeting, Message, Reason, Tag, Transport, Watch, not_reserved, too_long,
};
use crate::bootstrap::Node;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::memory::{Bell, Ringer, Shareable, Shared, View};
use crate::sys::os;
use crate::topology::Cost;

/// The largest payload that shares its header's line.
const PACKED: usize = 40;

/// All that two linked ranks share; index 0 is what the lower rank writes.
#[repr(C)]
struct Layout {
    boards: [Board; 2],
    rings: [[Slot; CREDIT]; 2],
}

// SAFETY: atomics and `UnsafeCell`s of bytes, and padding that nobody looks at.
unsafe impl Shareable for Layout {}
// SAFETY: the bytes of a slot belong to one rank at a time, handed over by `Slot::number` and
// `Board::released`, and are reached by address only.
unsafe impl Sync for Layout {}

#[repr(C, align(4096))]
struct Board {
    released: Apart<AtomicU64>,
    presence: Apart<Presence>,
    bodies: [[AtomicU64; 4]; CREDIT],
}

#[repr(C, align(128))]
struct Slot {
    number: AtomicU64,
    digest: AtomicU64,
    len: AtomicU64,
    packed: UnsafeCell<[u8; PACKED]>,
    payload: UnsafeCell<[u8; SLOT]>,
}

const _: () = assert!(std::mem::offset_of!(Slot, payload) == 64);

impl Slot {
    /// Where a payload of `len` bytes lies; nothing where none can.
    #[inline]
    fn place(&self, len: u64) -> Option<View<'_>> {
        let start = if len <= PACKED as u64 {
            self.packed.get().cast()
        } else if len <= SLOT as u64 {
            self.payload.get().cast()
        } else {
            return None;
        };
        // SAFETY: that many bytes lie there, borrowed from `self`; the slot's protocol keeps the ranks apart.
        Some(unsafe { View::from_raw(start, len as usize) })
    }
}

/// The first bytes that each rank sends: what it expects of the other.
const HELLO: [u64; 3] = [u64::from_be_bytes(*b"kolo/shm"), size_of::<Layout>() as u64, SLOT as u64];

struct ShmLink {
    memory: Shared<Layout>,
    /// Whether this is the higher rank.
    higher: bool,
    writer: Writer<CREDIT>,
    reader: Reader<CREDIT>,
    /// The length that was reserved.
    reserved: Cell<Option<usize>>,
    /// Rings the peer.
    ringer: Ringer,
    /// Ends with the peer.
    stream: UnixStream,
}

/// What crossing costs when the cores share a cache: nominal, until links are measured at start.
const COST: Cost = Cost { latency_ns: 150, bytes_per_us: 12_000 };

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

impl Handover for Shm {
    fn give(&self, meeting: &Meeting<'_>, fd: BorrowedFd<'_>) -> Result<()> {
        send_hello(&meeting.door.unix(meeting)?, &[fd])
    }

    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd> {
        let [fd] = receive_hello(&meeting.door.unix(meeting)?, meeting.deadline)?;
        Ok(fd)
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
        reserved: Cell::new(None),
        ringer,
        stream,
    }))
}

fn send_hello(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> Result<()> {
    os::send_with(stream, HELLO.map(u64::to_ne_bytes).as_flattened(), fds).map_err(|cause| {
        match cause.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
            _ => Error::system("cannot hand shared memory to a peer (sendmsg)", cause),
        }
    })
}

fn receive_hello<const N: usize>(stream: &UnixStream, deadline: Deadline) -> Result<[OwnedFd; N]> {
    if deadline.passed() {
        return Err(late());
    }
    let mut hello = [[0; 8]; HELLO.len()];
    let fds = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(deadline.left()))
        .and_then(|()| os::receive_with(stream, hello.as_flattened_mut()))
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => gone(),
            _ => Error::system("cannot receive a peer's shared memory (recvmsg)", cause),
        })?;
    let hello = hello.map(u64::from_ne_bytes);
    if hello != HELLO {
        let text =
            format!("it lays out shared memory differently ({hello:x?}, here {HELLO:x?}); use one build");
        return Err(Error::new(Kind::Refused, text));
    }
    fds.try_into().map_err(|fds: Vec<_>| {
        Error::new(Kind::Refused, format!("it sent {} descriptors instead of {N}", fds.len()))
    })
}

fn late() -> Error {
    Error::new(Kind::Deadline, "it did not set up shared memory in time")
}

fn gone() -> Error {
    Error::new(Kind::PeerLost, "its process is gone")
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

    /// The slot of the next message to send.
    #[inline]
    fn free_slot(&self) -> Result<Option<usize>> {
        match self.writer.room(&self.theirs().released) {
            Ok(Some(slot)) => Ok(Some(slot)),
            Ok(None) => self.theirs().presence.check().map(|()| None),
            Err(Forged) => Err(forged("a credit")),
        }
    }

    #[inline]
    fn outgoing(&self, slot: usize) -> &Slot {
        &self.memory.rings[usize::from(self.higher)][slot]
    }

    /// The slot of the next message to receive.
    #[inline]
    fn incoming(&self) -> &Slot {
        &self.memory.rings[usize::from(!self.higher)][self.reader.slot()]
    }
}

impl Link for ShmLink {
    fn limits(&self) -> Limits {
        Limits { slot: SLOT, credit: CREDIT, lends: false }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        let Some(slot) = self.free_slot()? else { return Ok(None) };
        let Some(place) = self.outgoing(slot).place(len as u64) else {
            return Err(too_long(len, SLOT));
        };
        self.reserved.set(Some(len));
        Ok(Some(place))
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        let free = if self.reserved.take() == Some(len) { self.free_slot()? } else { None };
        let index = free.ok_or_else(|| not_reserved(len))?;
        for (word, value) in self.mine().bodies[index].iter().zip(tag.body) {
            word.store(value, Ordering::Relaxed);
        }
        let slot = self.outgoing(index);
        slot.digest.store(tag.digest, Ordering::Relaxed);
        slot.len.store(len as u64, Ordering::Relaxed);
        self.writer.publish(&slot.number);
        self.ringer.ring();
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Result<Option<Message<'_>>> {
        let slot = self.incoming();
        if !self.reader.arrived(&slot.number) {
            return self.theirs().presence.check_after(|| self.reader.arrived(&slot.number)).map(|()| None);
        }
        let payload = slot.place(slot.len.load(Ordering::Relaxed)).ok_or_else(|| forged("a length"))?;
        Ok(Some(Message { digest: slot.digest.load(Ordering::Relaxed), payload }))
    }

    fn body(&self) -> [u64; 4] {
        self.theirs().bodies[self.reader.slot()].each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn release(&self) -> Result<()> {
        if !self.reader.arrived(&self.incoming().number) {
            return Err(Error::usage("release without peek"));
        }
        self.reader.release(&self.mine().released);
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
    use std::thread;
    use std::time::Duration;

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
    fn lengths_that_fit_no_slot_are_refused() {
        let (link, memory, _stream) = played();
        let slot = &memory.rings[0][1];
        slot.number.store(1, Ordering::Release);
        for len in [SLOT as u64 + 1, 1 << 32, u64::MAX] {
            slot.len.store(len, Ordering::Relaxed);
            let error = link.peek().unwrap_err();
            assert_eq!(error.kind(), Kind::PeerLost);
            assert!(error.to_string().contains("wrote a length"), "{error}");
        }
        slot.len.store(SLOT as u64, Ordering::Relaxed);
        assert_eq!(link.peek().unwrap().unwrap().payload.len(), SLOT);
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
