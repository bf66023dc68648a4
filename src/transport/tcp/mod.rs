//! Ranks that a network connects.
//!
//! One stream carries frames both ways; nothing blocks. What the socket does not take at once goes out at
//! later calls of any method. A lent message is written from where it lies; a received one is read into
//! the buffer in which it is lent to the reader. The kernel's own buffers give credit beyond what is
//! counted here, and its flow control takes it back.
//!
//! Where all is encrypted, the frames are the same, and what [carries](Carrier) them seals them.

mod frame;
mod incoming;
mod outgoing;
#[cfg(any(test, fuzzing))]
pub(crate) mod probes;
mod tune;

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{Shutdown, shutdown};

use self::frame::Frame;
use self::incoming::{Incoming, Over};
use self::outgoing::Outgoing;
use super::{
    Lent, Limits, Link, Meeting, Message, Reason, Received, Tag, Terms, Transport, Watch, not_reserved,
    send_copy, too_long,
};
use crate::bootstrap::{self, Carrier, Connection, Node};
use crate::error::{Error, Kind, Result};
use crate::memory::View;
use crate::sys::socket;
use crate::topology::{Cost, Handling};

/// The most payload bytes of a message, which goes out with one call. On loopback a byte costs the less the more of
/// them a call sends: a stream of 4 MiB takes 974 us by 64 KiB, 646 by 512 KiB, 560 by 1 MiB. Beyond that, vectors that
/// are combined leave the caches.
const SLOT: usize = 1 << 20;
/// Below this many payload bytes a copy next to the head costs less than a system call that gathers the two.
const WORTH_GATHERING: usize = 2 << 10;
/// How many messages may wait in this process to be written.
const CREDIT: usize = 4;

/// The system calls, and copies into and out of its buffers: as measured on Zen 4, all-reduces of 2 ranks of 8 B to 4 MiB.
/// A call that sends does most of the receiving side's work, too: nearly all of a message's way within a host is a core's.
const HANDLING: Handling = Handling { ns: 2_500, bytes_per_us: 14_000 };
/// Within a host: nobody carries anything but the cores.
const LOOPBACK: Cost = Cost { latency_ns: 200, bytes_per_us: u32::MAX, handling: HANDLING };
/// Between hosts; nominal: one connection fills a wire of 10 Gbit/s.
const NETWORK: Cost = Cost { latency_ns: 15_200, bytes_per_us: 1_250, handling: HANDLING };

/// The same where all is encrypted: a record each way, and 1.4 bytes a nanosecond at either end.
const SEALED: Handling = Handling { ns: 2_900, bytes_per_us: 1_250 };

/// Connects ranks by TCP.
#[derive(Debug, Default)]
pub struct Tcp {
    /// Whether all is encrypted.
    pub encrypt: bool,
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn reach(&self, me: &Node, peer: &Node) -> Result<Cost, Reason> {
        if me.tcp.is_empty() || peer.tcp.is_empty() {
            return Err("no TCP door was opened".into());
        }
        let handling = if self.encrypt { SEALED } else { HANDLING };
        if me.shares_loopback(peer) {
            return Ok(Cost { handling, ..LOOPBACK });
        }
        let beyond = |node: &Node| node.tcp.iter().any(|address| !address.ip().is_loopback());
        if !beyond(me) || !beyond(peer) {
            return Err("its TCP door opens to its own host only".into());
        }
        Ok(Cost { handling, ..NETWORK })
    }

    fn slot(&self) -> usize {
        SLOT
    }

    fn tcp_doors(&self) -> bootstrap::Tcp {
        bootstrap::Tcp::BetweenHosts
    }

    fn takes_rails(&self) -> bool {
        true
    }

    fn connect(&self, meeting: &Meeting<'_>) -> Result<Box<dyn Link>> {
        link_over(meeting.door.tcp(meeting)?, meeting.keepalive)
    }
}

/// One end of a link over a connection; the peer makes the other. The peer is lost when its host has been silent for
/// `keepalive`.
///
/// # Errors
/// [`Kind::System`] where the connection cannot be prepared.
pub fn link_over(connection: impl Into<Connection>, keepalive: Option<Duration>) -> Result<Box<dyn Link>> {
    let connection = connection.into();
    tune::tune(&connection, keepalive).map_err(|errno| Error::system("preparing a TCP connection", errno))?;
    Ok(match connection {
        Connection::Plain(stream) => Box::new(TcpLink::new(stream, keepalive)),
        Connection::Sealed(stream) => Box::new(TcpLink::new(stream, keepalive)),
    })
}

struct TcpLink<C: Carrier> {
    stream: C,
    /// How long the peer's host may be silent.
    keepalive: Option<Duration>,
    incoming: RefCell<Incoming>,
    outgoing: RefCell<Outgoing>,
    /// Why nothing can be written any more.
    broken: RefCell<Option<Error>>,
    /// Whether this side is done because of an error.
    failed: Cell<bool>,
}

// SAFETY: the addresses in `outgoing` are of its own places, or of memory that its lender keeps valid on
// whatever thread; a link is used by one thread at a time.
unsafe impl<C: Carrier> Send for TcpLink<C> {}

impl<C: Carrier> TcpLink<C> {
    fn new(stream: C, keepalive: Option<Duration>) -> Self {
        let (incoming, outgoing) = (RefCell::new(Incoming::new()), RefCell::new(Outgoing::new()));
        Self { stream, keepalive, incoming, outgoing, broken: RefCell::new(None), failed: Cell::new(false) }
    }

    /// Whether something that was sent waits in this process.
    fn waits(&self) -> bool {
        !self.outgoing.borrow().is_empty() || self.stream.unsent() && !self.failed.get()
    }

    /// Writes what waits, as far as the socket takes it.
    fn flush(&self) -> Result<()> {
        if let Some(error) = &*self.broken.borrow() {
            return Err(error.clone());
        }
        if !self.waits() {
            return Ok(());
        }
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.flush(&self.stream).map_err(|errno| self.broke(&mut outgoing, errno))
    }

    /// Writing failed: nothing will be written any more.
    #[cold]
    fn broke(&self, outgoing: &mut Outgoing, errno: Errno) -> Error {
        outgoing.clear();
        let error = self.lost(errno);
        self.broken.borrow_mut().get_or_insert(error).clone()
    }

    /// Reads what has come, until a message is whole.
    fn fill(&self) -> Result<()> {
        let filled = self.incoming.borrow_mut().fill(&self.stream);
        filled.map_err(reading)
    }

    /// Whether one more message has a place here; an error where none will ever be free again.
    fn has_place(&self) -> Result<bool> {
        self.still_here()?;
        if self.outgoing.borrow().has_place() {
            return Ok(true);
        }
        self.flush()?;
        let has = self.outgoing.borrow().has_place();
        if !has {
            self.connected()?;
        }
        Ok(has)
    }

    fn still_here(&self) -> Result<()> {
        match self.failed.get() {
            true => Err(Error::new(Kind::PeerLost, "this rank has left the communicator after an error")),
            false => Ok(()),
        }
    }

    /// What to say when writing failed: what the peer said last, if it said why.
    fn lost(&self, errno: Errno) -> Error {
        let Some(seen) = Over::by(errno) else { return Error::system("writing to a TCP connection", errno) };
        let _ = self.fill();
        match self.incoming.borrow().over() {
            // The one who asks first is told why a connection ended, the next one only that it did.
            None | Some(Over::Cut) => over(seen),
            Some(said) => over(said),
        }
    }

    /// An error where the connection is at its end, as far as this host knows.
    fn connected(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let now = Timespec::try_from(Duration::ZERO).expect("zero is a time");
        let hung_up = poll(&mut fds, Some(&now)).is_ok_and(|stirred| stirred > 0);
        if hung_up && !self.failed.get() {
            // All that it sent is here by now; the last of it may say why it left.
            self.fill()?;
        }
        match self.incoming.borrow().over() {
            Some(why) => Err(over(why)),
            None if hung_up => {
                let why = socket_error(&self.stream).ok().and_then(|error| Over::by(error.err()?));
                Err(over(why.unwrap_or(Over::Cut)))
            }
            None => Ok(()),
        }
    }

    /// Whether the peer's host has not answered for longer than it may take.
    fn silent(&self) -> bool {
        let silence = || socket::silence(&self.stream).unwrap_or_default();
        self.keepalive.is_some_and(|allowed| silence() >= allowed)
    }

    /// Sends a last frame, if it can be sent now.
    fn say_last(&self, kind: frame::Kind) {
        let whole = self.outgoing.borrow_mut().clear();
        if whole {
            let _ = self.stream.write(&[IoSlice::new(&Frame::last(kind).encode())]);
        }
    }
}

fn reading(errno: Errno) -> Error {
    Error::system("reading from a TCP connection", errno)
}

fn over(over: Over) -> Error {
    let text = match over {
        Over::Left => "it has left the communicator",
        Over::Failed => "it left the communicator after an error of its own",
        Over::Cut => "its TCP connection ended without a word: see whether it still runs",
        Over::Silent => {
            "its host does not answer any more (KOLO_KEEPALIVE): see whether it is up, and the network"
        }
        Over::Changed => {
            let text = "what came from it was changed on its way, or is not encrypted";
            return Error::new(Kind::Refused, text);
        }
        Over::Nonsense => return Error::new(Kind::Refused, "it sent what no rank sends"),
    };
    Error::new(Kind::PeerLost, text)
}

fn check(len: usize) -> Result<()> {
    if len > SLOT { Err(too_long(len, SLOT)) } else { Ok(()) }
}

impl<C: Carrier> Link for TcpLink<C> {
    fn limits(&self) -> Limits {
        Limits { slot: SLOT, credit: CREDIT, receives: true }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        check(len)?;
        if !self.has_place()? {
            return Ok(None);
        }
        let start = self.outgoing.borrow_mut().reserve(len);
        // SAFETY: `len` bytes of a free place, which stays where it is as long as `self`.
        Ok(Some(unsafe { View::from_raw(start, len) }))
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        if !self.outgoing.borrow_mut().commit(len, tag) {
            return Err(not_reserved(len));
        }
        self.flush()
    }

    fn send(&self, payload: View<'_>, tag: &Tag) -> Result<bool> {
        if payload.len() < WORTH_GATHERING {
            return send_copy(self, payload, tag);
        }
        check(payload.len())?;
        if !self.has_place()? {
            return Ok(false);
        }
        if let Some(error) = &*self.broken.borrow() {
            return Err(error.clone());
        }
        let mut outgoing = self.outgoing.borrow_mut();
        let sent = outgoing.send(payload, tag, &self.stream);
        sent.map(|()| true).map_err(|errno| self.broke(&mut outgoing, errno))
    }

    fn receive(&self, into: View<'_>, digest: u64) -> Result<Received> {
        // Where it is another message, there must be room for what came instead.
        check(into.len())?;
        self.still_here()?;
        // What waits must go out, or nobody would answer; what is wrong with it, peeking says.
        let _ = self.flush();
        let received = self.incoming.borrow_mut().receive(into, digest, &self.stream);
        received.map_err(reading)
    }

    fn peek(&self) -> Result<Option<Message<'_>>> {
        self.still_here()?;
        // What came before the connection broke still counts.
        let flushed = self.flush();
        self.fill()?;
        let incoming = self.incoming.borrow();
        match (incoming.whole(), incoming.over()) {
            (Some((frame, payload)), _) => {
                // SAFETY: a whole payload, which stays where it is until it is released.
                let payload = unsafe { View::from_raw(payload, frame.len) };
                Ok(Some(Message { digest: frame.tag.digest, payload }))
            }
            (None, Some(why)) => Err(over(why)),
            (None, None) => flushed.map(|()| None),
        }
    }

    fn body(&self) -> [u64; 4] {
        self.incoming.borrow().whole().map(|(frame, _)| frame.tag.body).unwrap_or_default()
    }

    fn release(&self) -> Result<()> {
        match self.incoming.borrow_mut().release() {
            true => Ok(()),
            false => Err(Error::usage("release without peek")),
        }
    }

    fn lend(&self, pieces: &[View<'_>], _terms: Terms<'_>, tag: &Tag) -> Result<Lent> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        check(len)?;
        if !self.has_place()? {
            return Ok(Lent::Later);
        }
        // What was received here is overwritten as soon as it is released, sent or not.
        let received = |piece: &View<'_>| self.incoming.borrow().holds(piece.as_ptr());
        if pieces.iter().any(received) {
            let mut place = self.outgoing.borrow_mut().reserve(len);
            for piece in pieces {
                // SAFETY: the places hold a slot's bytes and overlap nothing that is read.
                unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), place, piece.len()) };
                place = place.wrapping_add(piece.len());
            }
            return self.commit(len, tag).map(|()| Lent::Yes);
        }
        self.outgoing.borrow_mut().lend(pieces, len, tag);
        self.flush().map(|()| Lent::Yes)
    }

    fn settled(&self) -> Result<bool> {
        self.flush()?;
        Ok(!self.waits())
    }

    fn alive(&self) -> Result<()> {
        self.connected()?;
        if self.silent() { Err(over(Over::Silent)) } else { Ok(()) }
    }

    fn watch(&self) -> Option<Watch> {
        // Who sleeps for another link still gets this one's messages out. What fails here is said again
        // by the next call.
        let _ = self.flush();
        let unsent = self.waits();
        Some(Watch { fd: self.stream.as_fd().as_raw_fd(), write: unsent, unsent, within: None })
    }

    fn fail(&self) {
        if !self.failed.replace(true) {
            self.say_last(frame::Kind::Failed);
            let _ = shutdown(&self.stream, Shutdown::Both);
        }
    }
}

impl<C: Carrier> Drop for TcpLink<C> {
    fn drop(&mut self) {
        if !self.failed.get() {
            self.say_last(frame::Kind::Left);
        }
    }
}
