//! Messages on their way in.

use std::io::IoSliceMut;
use std::slice;

use rustix::io::Errno;

use super::SLOT;
use super::frame::{ALIGN, Frame, HEAD, Kind};
use crate::bootstrap::Carrier;
use crate::memory::View;
use crate::transport::Received;
use crate::transport::room::Room;

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
    /// How much of its payload and padding came to the reader's memory, if it comes there.
    placed: Option<usize>,
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
    /// The peer's host answers no more.
    Silent,
    /// What it brought is not what the peer sent.
    Changed,
    /// It brought what no rank sends.
    Nonsense,
}

impl Over {
    /// What an error of the socket tells about the peer, if anything.
    pub(super) fn by(errno: Errno) -> Option<Self> {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Some(Self::Cut),
            Errno::BADMSG => Some(Self::Changed),
            // The last two are what routers, or this host's own table of neighbours, said of it meanwhile.
            Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => Some(Self::Silent),
            _ => None,
        }
    }
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { room: Room::new(CAPACITY), start: BEGIN, end: BEGIN, frame: None, placed: None, over: None }
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
    pub(super) fn fill(&mut self, socket: &impl Carrier) -> Result<(), Errno> {
        while self.whole().is_none() && self.placed.is_none() && self.over.is_none() {
            let wanted = self.make_room();
            // SAFETY: `wanted` bytes from `end` on lie in the room, and nobody looks at them: what is
            // at hand, if anything, lies before.
            let free = unsafe { slice::from_raw_parts_mut(self.room.at(self.end), wanted) };
            match socket.read(&mut [IoSliceMut::new(free)]) {
                Ok(0) => self.over = Some(Over::Cut),
                Ok(count) => {
                    self.end += count;
                    self.look();
                    if count < wanted {
                        // That was all there was.
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => self.over = Some(Over::by(errno).ok_or(errno)?),
            }
        }
        Ok(())
    }

    /// Reads the message of this length and digest to where it belongs. What comes in the same call as its head
    /// is there already when the head is seen; if it is another message's, it goes to the room after all.
    pub(super) fn receive(
        &mut self,
        into: View<'_>,
        digest: u64,
        socket: &impl Carrier,
    ) -> Result<Received, Errno> {
        let expected = |frame: &Frame| (frame.len, frame.tag.digest) == (into.len(), digest);
        if self.placed.is_none() {
            let at_hand = self.frame.is_some_and(|frame| self.end - self.start >= frame.total());
            if at_hand || self.over.is_some() || !self.frame.as_ref().is_none_or(expected) {
                return Ok(Received::Peek);
            }
            match self.frame {
                Some(_) => self.placed = Some(self.hand_over(into)),
                // A longest message has room behind its head, should it be another one.
                None => self.move_to_front(),
            }
        }
        loop {
            let (missing, placed) = (HEAD - (self.end - self.start), self.placed.unwrap_or(0));
            let rest = into.part(placed.min(into.len())..into.len());
            let padding = (into.len().next_multiple_of(ALIGN) - into.len().max(placed)).min(ALIGN);
            let mut zeros = [0; ALIGN];
            // SAFETY: the first stretch is of the room, behind all that is at hand; the second of the caller's
            // memory, which nobody else touches while it is received to.
            let [head, payload] = unsafe {
                [
                    slice::from_raw_parts_mut(self.room.at(self.end), missing),
                    slice::from_raw_parts_mut(rest.as_ptr(), rest.len()),
                ]
            };
            let stretches = &mut [
                IoSliceMut::new(head),
                IoSliceMut::new(payload),
                IoSliceMut::new(&mut zeros[..padding]),
            ];
            let wanted = missing + rest.len() + padding;
            let count = match socket.read(stretches) {
                Ok(0) => {
                    self.over = Some(Over::Cut);
                    return Ok(Received::Peek);
                }
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Received::Later),
                Err(errno) => {
                    self.over = Some(Over::by(errno).ok_or(errno)?);
                    return Ok(Received::Peek);
                }
            };
            self.end += count.min(missing);
            let placed = placed + count.saturating_sub(missing);
            self.look();
            match self.frame {
                Some(frame) if expected(&frame) => self.placed = Some(placed),
                Some(_) => {
                    self.take_back(&[rest, View::write(&mut zeros[..padding])], placed);
                    return Ok(Received::Peek);
                }
                None if self.over.is_some() => return Ok(Received::Peek),
                None => {}
            }
            if count < wanted {
                // That was all there was.
                return Ok(Received::Later);
            }
            (self.start, self.end) = (BEGIN, BEGIN);
            (self.frame, self.placed) = (None, None);
            return Ok(Received::Yes);
        }
    }

    /// Moves what is at hand of a payload to where it belongs; says how much of the message that was.
    fn hand_over(&mut self, into: View<'_>) -> usize {
        let have = self.end - self.start - HEAD;
        let from = self.room.at(self.start + HEAD);
        // SAFETY: these bytes of the room were read, and the caller's memory is not in it.
        unsafe { from.copy_to_nonoverlapping(into.as_ptr(), have.min(into.len())) };
        self.end = self.start + HEAD;
        have
    }

    /// The reverse, for the first `count` bytes of what was read to the wrong places.
    fn take_back(&mut self, places: &[View<'_>], mut count: usize) {
        for place in places {
            let here = count.min(place.len());
            // SAFETY: the places hold no more than a longest message does, for which there is room.
            unsafe { self.room.at(self.end).copy_from_nonoverlapping(place.as_ptr(), here) };
            self.end += here;
            count -= here;
        }
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

    /// Moves what is at hand to the front of the room.
    fn move_to_front(&mut self) {
        let have = self.end - self.start;
        let (from, to) = (self.room.at(self.start), self.room.at(BEGIN));
        // SAFETY: both stretches of `have` bytes lie in the room; they may overlap.
        unsafe { std::ptr::copy(from, to, have) };
        (self.start, self.end) = (BEGIN, BEGIN + have);
    }

    /// How many bytes to read next; there is room for them after `end`.
    fn make_room(&mut self) -> usize {
        let have = self.end - self.start;
        let wanted = self.frame.map_or(HEAD, |frame| frame.total()) - have;
        if self.end + wanted > CAPACITY {
            self.move_to_front();
        }
        match self.frame {
            Some(_) => wanted,
            None => AHEAD.min(CAPACITY - self.end),
        }
    }
}
