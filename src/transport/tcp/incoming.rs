//! Messages on their way in.

use std::os::fd::BorrowedFd;
use std::slice;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::SLOT;
use super::frame::{Frame, HEAD, Kind};
use super::room::Room;

/// Where an empty buffer is filled from, so that the first payload begins on a cache line.
const BEGIN: usize = 64 - HEAD;
/// The most that is read before a message's length is known: the longest message, at once.
const AHEAD: usize = HEAD + SLOT;
/// Room for all that is read ahead, the last message of which may be cut off anywhere.
const CAPACITY: usize = BEGIN + 2 * AHEAD;

/// What was read and not yet released: `start..end` of the room, with a frame at `start`.
///
/// While a message's length is not known, a read asks for all that the longest would take: a large
/// message comes in one call, and of small ones as many as are there. Once it is known, a read asks for
/// the rest of that message and no more, so that the buffer empties and nothing is ever moved but a
/// message cut off near the end of the room.
pub(super) struct Incoming {
    room: Room,
    start: usize,
    end: usize,
    /// The head at `start`, once it has come.
    frame: Option<Frame>,
    /// Why no more will come.
    over: Option<Over>,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer is done.
    Left,
    /// The peer is done because of an error.
    Failed,
    /// It ended without a word.
    Cut,
    /// It brought what no rank sends.
    Nonsense,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { room: Room::new(CAPACITY), start: BEGIN, end: BEGIN, frame: None, over: None }
    }

    /// The message at hand, if it has come whole: its head, and where its payload lies.
    pub(super) fn whole(&self) -> Option<(Frame, *mut u8)> {
        let frame = self.frame.filter(|frame| self.end - self.start >= frame.total())?;
        Some((frame, self.room.at(self.start + HEAD)))
    }

    /// Why no more will come, once all that came was released.
    pub(super) fn over(&self) -> Option<Over> {
        self.over
    }

    /// Whether `address` lies in the buffer.
    pub(super) fn holds(&self, address: *const u8) -> bool {
        self.room.holds(address)
    }

    /// Takes the message at hand away; false where there is none.
    pub(super) fn release(&mut self) -> bool {
        let Some((frame, _)) = self.whole() else { return false };
        self.start += frame.total();
        self.frame = None;
        if self.start == self.end {
            (self.start, self.end) = (BEGIN, BEGIN);
        }
        self.look();
        true
    }

    /// Reads on, unless a message is at hand or no more will come.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        while self.whole().is_none() && self.over.is_none() {
            let wanted = self.make_room();
            // SAFETY: `wanted` bytes from `end` on lie in the room, and nobody looks at them: what is
            // at hand, if anything, lies before.
            let free = unsafe { slice::from_raw_parts_mut(self.room.at(self.end), wanted) };
            match recv(socket, free, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET | Errno::TIMEDOUT) => self.over = Some(Over::Cut),
                Ok((count, _)) => {
                    self.end += count;
                    self.look();
                    if count < wanted {
                        // That was all there was.
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Looks at the head at `start`, if it has come and was not looked at.
    fn look(&mut self) {
        if self.frame.is_some() || self.over.is_some() || self.end - self.start < HEAD {
            return;
        }
        // SAFETY: these bytes of the room were read, and nobody writes them.
        let head = unsafe { self.room.at(self.start).cast::<[u8; HEAD]>().read_unaligned() };
        match Frame::decode(&head) {
            Some(frame) if frame.kind == Kind::Message => self.frame = Some(frame),
            Some(Frame { kind: Kind::Left, .. }) => self.over = Some(Over::Left),
            Some(_) => self.over = Some(Over::Failed),
            None => self.over = Some(Over::Nonsense),
        }
    }

    /// How many bytes to read next; there is room for them after `end`.
    fn make_room(&mut self) -> usize {
        let have = self.end - self.start;
        let wanted = self.frame.map_or(HEAD, |frame| frame.total()) - have;
        if self.end + wanted > CAPACITY {
            let (from, to) = (self.room.at(self.start), self.room.at(BEGIN));
            // SAFETY: both stretches of `have` bytes lie in the room; they may overlap.
            unsafe { std::ptr::copy(from, to, have) };
            (self.start, self.end) = (BEGIN, BEGIN + have);
        }
        match self.frame {
            Some(_) => wanted,
            None => AHEAD.min(CAPACITY - self.end),
        }
    }
}
