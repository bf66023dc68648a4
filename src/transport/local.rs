//! Ranks that are threads of one process.
//!
//! Two ranks share a pair; each writes its own side of it, and reads the other's. A message is
//! copied into its slot's room, or lent: then the slot says where its pieces lie, and the reader reads
//! them there.

use std::cell::{Cell, UnsafeCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::fifo::{Apart, CREDIT, Forged, Reader, SLOT, Writer};
use super::handover::no_memory;
use super::lease::Lease;
use super::presence::Presence;
use super::{
    Handover, Lent, Limits, Link, Meeting, Message, Reason, Tag, Terms, Transport, Watch, not_reserved,
    too_long,
};
use crate::bootstrap::Node;
use crate::error::{Error, Kind, Result};
use crate::memory::{Bell, Ringer, View};
use crate::topology::{Channel, Cost, Handling};

/// Two cores of one host: a few line transfers, and a copy out of a cache.
const COST: Cost = Cost { latency_ns: 150, bytes_per_us: 16_000, handling: Handling::NONE };

/// Who waits for another rank's memory asks so often whether that one is still there.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the ranks of one process meet.
#[derive(Debug, Default)]
pub struct Hub {
    /// Pairs of which one rank has come.
    waiting: Mutex<HashMap<Key, Arc<Pair>>>,
    /// Descriptors that were given and not yet taken: the communicator, from whom, to whom.
    given: Mutex<HashMap<(u64, usize, usize), Option<OwnedFd>>>,
    /// Rung when something was given.
    news: Condvar,
}

/// The communicator, the lower and the higher rank, the channel.
type Key = (u64, usize, usize, Channel);

impl Hub {
    /// An empty one, to be shared by the ranks of a job.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Rank `me`'s end of a link to `peer`, which does the same, now or later; nobody waits.
    pub fn link(
        &self,
        communicator: u64,
        me: usize,
        peer: usize,
        channel: Channel,
        bell: &Bell,
    ) -> Box<dyn Link> {
        self.link_to((me, peer), communicator, channel, bell, Box::new(|| Ok(None)))
    }

    /// The same; `absence` says why the peer will not come any more, if so.
    fn link_to(
        &self,
        (me, peer): (usize, usize),
        communicator: u64,
        channel: Channel,
        bell: &Bell,
        absence: Absence,
    ) -> Box<dyn Link> {
        let key = (communicator, me.min(peer), me.max(peer), channel);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = match waiting.entry(key) {
            Entry::Occupied(first) => first.remove(),
            Entry::Vacant(place) => place.insert(Arc::default()).clone(),
        };
        Box::new(LocalLink::new(pair, me > peer, bell.ringer(), absence))
    }
}

/// Asks why a peer that has not come will not come any more, if so.
type Absence = Box<dyn Fn() -> Result<Option<&'static str>> + Send>;

/// Connects threads of one process that share a [`Hub`].
#[derive(Debug)]
pub struct Local {
    hub: Option<Arc<Hub>>,
}

impl Local {
    /// For a rank whose whole job shares `hub`, or that is a process of its own.
    pub fn new(hub: Option<Arc<Hub>>) -> Self {
        Self { hub }
    }

    fn hub(&self) -> Result<&Hub, Reason> {
        self.hub.as_deref().ok_or_else(|| "its ranks are processes, not threads of one".to_owned())
    }
}

impl Transport for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn reach(&self, _me: &Node, _peer: &Node) -> Result<Cost, Reason> {
        self.hub().map(|_| COST)
    }

    fn slot(&self) -> usize {
        SLOT
    }

    fn connect(&self, meeting: &Meeting<'_>) -> Result<Box<dyn Link>> {
        let hub = self.hub().map_err(Error::usage)?;
        let Meeting { me, peer, communicator, origin, channel, bell, .. } = *meeting;
        let (door, node) = (Arc::clone(meeting.door), meeting.node.clone());
        let absence = Box::new(move || door.has_left(peer, &node, (communicator, origin)));
        Ok(hub.link_to((me, peer), communicator, channel, bell, absence))
    }

    fn handover(&self) -> Option<&dyn Handover> {
        Some(self)
    }
}

impl Handover for Local {
    fn give(&self, meeting: &Meeting<'_>, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let hub = self.hub().map_err(Error::usage)?;
        let copy = fd.map(|fd| fd.try_clone_to_owned()).transpose();
        let (fd, outcome) = match copy {
            Ok(fd) => (fd, Ok(())),
            Err(cause) => (None, Err(Error::system("cannot hand over memory", cause))),
        };
        let key = (meeting.communicator, meeting.me, meeting.peer);
        hub.given.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fd);
        hub.news.notify_all();
        outcome
    }

    fn take(&self, meeting: &Meeting<'_>) -> Result<OwnedFd> {
        let hub = self.hub().map_err(Error::usage)?;
        let &Meeting { me, peer, communicator, origin, node, .. } = meeting;
        let mut absent = None;
        loop {
            let mut given = hub.given.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(fd) = given.remove(&(communicator, peer, me)) {
                return fd.ok_or_else(no_memory);
            }
            if let Some(why) = absent {
                return Err(Error::new(Kind::PeerLost, why));
            }
            if meeting.deadline.passed() {
                return Err(Error::new(Kind::Deadline, "it did not share its memory in time"));
            }
            let most = meeting.deadline.left().unwrap_or(Duration::MAX).min(PAUSE);
            let waited = hub.news.wait_timeout(given, most).unwrap_or_else(PoisonError::into_inner);
            let paused = waited.1.timed_out();
            // Nobody else waits for the answer; and what was given meanwhile still counts.
            drop(waited);
            if paused {
                absent = meeting.door.has_left(peer, node, (communicator, origin))?;
            }
        }
    }
}

/// What two linked ranks share.
#[derive(Debug, Default)]
struct Pair {
    sides: [Side; 2],
}

/// What one rank writes and the other reads.
#[derive(Debug, Default)]
struct Side {
    released: Apart<AtomicU64>,
    presence: Apart<Presence>,
    /// Rings this rank; there once it has come.
    ringer: OnceLock<Ringer>,
    slots: [Slot; CREDIT],
}

/// A message. Its writer owns it until it is published, then its reader until it is released.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    number: AtomicU64,
    lease: Lease,
    posted: UnsafeCell<Posted>,
    room: Room,
}

// SAFETY: `posted` and the bytes of `room` belong to one rank at a time, handed over by `number` and
// `Side::released`.
unsafe impl Sync for Slot {}
// SAFETY: the views in `posted` are addresses that the lender keeps valid, on whatever thread.
unsafe impl Send for Slot {}

#[derive(Debug, Default)]
struct Posted {
    digest: u64,
    len: usize,
    body: [u64; 4],
    /// Where the message lies, if it is lent; valid while the slot's lease is.
    lent: Vec<View<'static>>,
}

/// `SLOT` bytes, allocated when first needed, touched where used.
#[derive(Debug, Default)]
struct Room(OnceLock<Box<[UnsafeCell<u8>]>>);

impl Room {
    const ALIGN: usize = 64;

    fn start(&self) -> *mut u8 {
        let bytes = self.0.get_or_init(|| {
            let zeros = Box::into_raw(vec![0u8; SLOT + Self::ALIGN].into_boxed_slice());
            // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box is ours.
            unsafe { Box::from_raw(zeros as *mut [UnsafeCell<u8>]) }
        });
        let start = UnsafeCell::raw_get(bytes.as_ptr());
        start.wrapping_add(start.align_offset(Self::ALIGN))
    }

    fn view(&self, len: usize) -> View<'_> {
        assert!(len <= SLOT);
        // SAFETY: `len` bytes lie there, borrowed from `self`; the slot's protocol keeps the ranks apart.
        unsafe { View::from_raw(self.start(), len) }
    }
}

struct LocalLink {
    pair: Arc<Pair>,
    /// Which side is this rank's.
    me: usize,
    writer: Writer<CREDIT>,
    reader: Reader<CREDIT>,
    /// The length that was reserved.
    reserved: Cell<Option<usize>>,
    /// The payload of the message being peeked; `None` until it is opened.
    open: Cell<Option<View<'static>>>,
    absence: Absence,
}

// SAFETY: `open` is an address inside `pair`, or one that a lender keeps valid, on whatever thread.
unsafe impl Send for LocalLink {}

impl LocalLink {
    fn new(pair: Arc<Pair>, higher: bool, ringer: Ringer, absence: Absence) -> Self {
        let me = usize::from(higher);
        let first = pair.sides[me].ringer.set(ringer).is_ok();
        debug_assert!(first, "each rank takes its own side");
        let (writer, reader) = (Writer::new(), Reader::new());
        Self { pair, me, writer, reader, reserved: Cell::new(None), open: Cell::new(None), absence }
    }

    fn mine(&self) -> &Side {
        &self.pair.sides[self.me]
    }

    fn theirs(&self) -> &Side {
        &self.pair.sides[1 - self.me]
    }

    /// The slot of the next message to send.
    fn free_slot(&self) -> Result<Option<&Slot>> {
        match self.writer.room(&self.theirs().released) {
            Ok(Some(slot)) => Ok(Some(&self.mine().slots[slot])),
            Ok(None) => self.theirs().presence.check().map(|()| None),
            Err(Forged) => unreachable!("this process wrote it"),
        }
    }

    fn post(&self, slot: &Slot, len: usize, tag: &Tag, pieces: &[View<'_>]) {
        // SAFETY: the slot is ours until it is published, and no reference into it is kept.
        let posted = unsafe { &mut *slot.posted.get() };
        posted.digest = tag.digest;
        posted.body = tag.body;
        posted.len = len;
        posted.lent.clear();
        for piece in pieces {
            // SAFETY: the lender keeps it until the lease ends, and whoever follows it looks at the lease.
            posted.lent.push(unsafe { View::from_raw(piece.as_ptr(), piece.len()) }.read_only());
        }
        if !pieces.is_empty() {
            slot.lease.lend();
        }
        self.writer.publish(&slot.number, false);
        self.ring();
    }

    /// Wakes the peer. One that has not come yet will look for itself before it sleeps.
    fn ring(&self) {
        compiler_fence(Ordering::SeqCst);
        if let Some(ringer) = self.theirs().ringer.get() {
            ringer.ring();
        }
    }

    /// The slot of the next message to receive, if it has come.
    fn full_slot(&self) -> Option<&Slot> {
        let slot = &self.theirs().slots[self.reader.slot()];
        self.reader.arrived(&slot.number).then_some(slot)
    }

    /// The payload of the message in `slot`, where it lies: made once per message.
    fn open(&self, slot: &Slot, posted: &Posted) -> Result<View<'static>> {
        let payload = match posted.lent.as_slice() {
            [] => slot.room.view(posted.len),
            _ if !slot.lease.open() => {
                self.theirs().presence.check()?;
                unreachable!("only a rank that leaves takes back what it lent")
            }
            [piece] => *piece,
            pieces => {
                let room = slot.room.view(posted.len);
                gather(pieces, room);
                slot.lease.close();
                room
            }
        };
        // SAFETY: lives in `self.pair`, or is lent until `release`, after which `self.open` is empty; what
        // leaves this link is borrowed from it.
        let payload = unsafe { std::mem::transmute::<View<'_>, View<'static>>(payload) };
        self.open.set(Some(payload));
        Ok(payload)
    }
}

/// Copies the pieces one after the other.
fn gather(pieces: &[View<'_>], into: View<'_>) {
    let mut at = 0;
    for piece in pieces {
        let place = into.part(at..at + piece.len());
        // SAFETY: both views are valid for as many bytes, and a link's room is nobody's input.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), place.as_ptr(), piece.len()) };
        at += piece.len();
    }
}

fn check_len(len: usize) -> Result<()> {
    if len > SLOT { Err(too_long(len, SLOT)) } else { Ok(()) }
}

impl Link for LocalLink {
    fn limits(&self) -> Limits {
        Limits { slot: SLOT, credit: CREDIT, receives: false }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        check_len(len)?;
        let Some(slot) = self.free_slot()? else { return Ok(None) };
        self.reserved.set(Some(len));
        Ok(Some(slot.room.view(len)))
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        let free = if self.reserved.take() == Some(len) { self.free_slot()? } else { None };
        let slot = free.ok_or_else(|| not_reserved(len))?;
        self.post(slot, len, tag, &[]);
        Ok(())
    }

    fn peek(&self) -> Result<Option<Message<'_>>> {
        let Some(slot) = self.full_slot() else {
            return self.theirs().presence.check_after(|| self.full_slot().is_some()).map(|()| None);
        };
        // SAFETY: the slot is ours until it is released, and nobody writes `posted` meanwhile.
        let posted = unsafe { &*slot.posted.get() };
        let payload = match self.open.get() {
            Some(payload) => payload,
            None => self.open(slot, posted)?,
        };
        if slot.lease.is_read() {
            // A lender that failed waits for its readers to notice.
            self.theirs().presence.check()?;
        }
        Ok(Some(Message { digest: posted.digest, payload }))
    }

    fn body(&self) -> [u64; 4] {
        // SAFETY: as in `peek`.
        self.full_slot().map(|slot| unsafe { (*slot.posted.get()).body }).unwrap_or_default()
    }

    fn release(&self) -> Result<()> {
        let slot = self.full_slot().ok_or_else(|| Error::usage("release without peek"))?;
        self.open.set(None);
        slot.lease.close();
        self.reader.release(&self.mine().released, true);
        self.ring();
        Ok(())
    }

    fn lend(&self, pieces: &[View<'_>], _terms: Terms<'_>, tag: &Tag) -> Result<Lent> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        check_len(len)?;
        let Some(slot) = self.free_slot()? else { return Ok(Lent::Later) };
        self.post(slot, len, tag, pieces);
        Ok(Lent::Yes)
    }

    fn settled(&self) -> Result<bool> {
        if self.mine().slots.iter().all(|slot| slot.lease.is_free()) {
            return Ok(true);
        }
        if self.mine().presence.here() {
            self.theirs().presence.check()?;
        }
        Ok(false)
    }

    fn alive(&self) -> Result<()> {
        self.theirs().presence.check()?;
        if self.theirs().ringer.get().is_some() {
            return Ok(());
        }
        (self.absence)()?.map_or(Ok(()), |why| Err(Error::new(Kind::PeerLost, why)))
    }

    fn watch(&self) -> Option<Watch> {
        None
    }

    fn fail(&self) {
        self.mine().presence.fail();
        self.end();
    }
}

impl LocalLink {
    /// Takes back what this rank lent, gives back what it holds, and tells the peer.
    fn end(&self) {
        self.mine().slots.iter().for_each(|slot| slot.lease.revoke());
        if self.open.take().is_some()
            && let Some(slot) = self.full_slot()
        {
            slot.lease.close();
        }
        self.ring();
    }
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        self.mine().presence.leave();
        self.end();
    }
}
