//! Messages on their way in.

use std::collections::VecDeque;

use super::head::{BRIEF, HEAD, Head, Kind};
use super::operation::{Buffer, Operations, Part};
use super::{CREDIT, EAGER, PAYLOAD, PIECE, PIECES, RING, SLOT, STRIDE, WINDOW};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::memory::View;
use crate::sys::fabric::{Fault, Port, Registration};

/// Where the payload of a message is.
enum Payload {
    /// Behind its head.
    Here,
    /// It follows, and nobody has said where to.
    Waits,
    /// It follows, to there.
    Comes(Place),
    /// It lies there.
    Lies(Place),
}

/// Where a payload that follows comes to.
enum Place {
    Own(Buffer),
    /// Where the reader wants it; registered as long as it comes.
    Wanted {
        start: *mut u8,
        registration: Option<Registration>,
    },
}

impl Place {
    fn lies(&self) -> (*mut u8, Option<&Registration>) {
        match self {
            Self::Own(buffer) => (buffer.at(0), buffer.registration()),
            Self::Wanted { start, registration } => (*start, registration.as_ref()),
        }
    }
}

/// A message that has come, or whose head has.
struct Item {
    /// Where in the ring.
    slot: u8,
    head: Head,
    number: u64,
    payload: Payload,
    /// How many pieces of the payload were asked for, and how many of those have come or never will; the payload is one,
    /// or so many as its head says.
    asked: u8,
    heard: u8,
    /// Whether some never will.
    lost: bool,
}

impl Item {
    fn pieces(&self) -> u8 {
        if self.head.kind == Kind::Pieced { self.head.len.div_ceil(PIECE) as u8 } else { 1 }
    }

    /// Where in the payload a piece begins, and how many bytes it has.
    fn piece(&self, piece: u8) -> (usize, usize) {
        match self.head.kind {
            Kind::Pieced => {
                let start = usize::from(piece) * PIECE;
                (start, PIECE.min(self.head.len - start))
            }
            _ => (0, self.head.len),
        }
    }

    fn part(&self, piece: u8) -> Part {
        let place = (self.number % WINDOW as u64) as u8;
        if self.head.kind == Kind::Pieced {
            Part::Piece(place * PIECES as u8 + piece)
        } else {
            Part::Placed(place)
        }
    }

    /// Asks for all of the payload, as far as the library takes it; says whether it took any.
    ///
    /// # Safety
    /// The place must be valid, and nobody may look at it, until all that was asked for was heard of.
    unsafe fn ask(
        &mut self,
        place: Place,
        port: &Port,
        tag: u64,
        operations: &mut Operations,
    ) -> (Result<bool, Fault>, Option<Place>) {
        let (start, registration) = place.lies();
        let mut fault = None;
        while self.asked < self.pieces() {
            let (at, len) = self.piece(self.asked);
            let context = operations.context(self.part(self.asked));
            // SAFETY: as the caller promises; the place stays with the message until then.
            match unsafe { port.receive((start.wrapping_add(at), len), registration, tag, context) } {
                Ok(begun) if operations.note(begun) => self.asked += 1,
                Ok(_) => break,
                Err(why) => {
                    fault = Some(why);
                    break;
                }
            }
        }
        let (all, some) = (self.asked == self.pieces(), self.asked > 0);
        let unused = if some {
            self.payload = Payload::Comes(place);
            None
        } else {
            Some(place)
        };
        (fault.map_or(Ok(all), Err), unused)
    }
}

/// What the first message is like.
pub(super) enum Front<'a> {
    /// There is none.
    None,
    /// It lies there.
    Whole(&'a Head, *mut u8),
    /// It lies where its reader wanted it.
    Received,
    /// Its payload follows.
    Follows(&'a Head),
    /// Its payload is on its way to a buffer, or to where its reader wants it.
    Comes { wanted: bool },
}

/// A ring of places that messages come to in the order in which the library was handed them, and the messages there.
pub(super) struct Incoming {
    ring: Buffer,
    /// Places that the library has, in order.
    posted: VecDeque<u8>,
    /// Places that it is to have next.
    free: VecDeque<u8>,
    /// How many bytes came to those places that it has filled out of order.
    filled: [Option<usize>; RING],
    items: VecDeque<Item>,
    /// The body of the last message's tag.
    last: [u64; 4],
    /// How many messages have come.
    came: u64,
    /// How many of them were released.
    released: u64,
    /// How many the peer was told of.
    told: u64,
    /// How many of the peer's are to be believed.
    believed: u64,
    spare: Vec<Buffer>,
    greeted: bool,
    /// Whether the peer has said that it is done.
    rung: bool,
}

/// What no rank sends.
pub(super) fn nonsense() -> Error {
    Error::new(ErrorKind::Refused, "it sent what no rank sends")
}

impl Incoming {
    pub(super) fn new(port: &Port) -> Result<Self> {
        Ok(Self {
            ring: Buffer::new(port, RING * STRIDE)?,
            posted: VecDeque::with_capacity(RING),
            free: (0..RING as u8).collect(),
            filled: [None; RING],
            items: VecDeque::with_capacity(WINDOW),
            last: [0; 4],
            came: 0,
            released: 0,
            told: 0,
            believed: u64::MAX,
            spare: Vec::new(),
            greeted: false,
            rung: false,
        })
    }

    fn address(&self, slot: u8) -> *mut u8 {
        self.ring.at(usize::from(slot) * STRIDE + PAYLOAD - HEAD)
    }

    /// How many messages were released; this is what the peer is told next.
    pub(super) fn tell(&mut self) -> u64 {
        self.told = self.released;
        self.released
    }

    /// Whether the peer may soon have to wait for that.
    pub(super) fn owes(&self) -> bool {
        self.released - self.told >= CREDIT as u64
    }

    /// Whether the library should be handed places, or the peer be told something, before this side sends or looks again.
    #[inline]
    pub(super) fn is_urgent(&self) -> bool {
        self.owes() || self.posted.len() < CREDIT
    }

    /// Whether places wait to be handed to the library.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether the peer's end reaches this one.
    pub(super) fn greeted(&self) -> bool {
        self.greeted
    }

    /// Whether the peer has said that it is done.
    pub(super) fn rung(&self) -> bool {
        self.rung
    }

    /// Of the peer's messages, so many are to be believed.
    pub(super) fn believe(&mut self, messages: u64) {
        self.believed = messages;
    }

    /// Whether all of so many messages have come.
    pub(super) fn has(&self, messages: u64) -> bool {
        self.came >= messages
    }

    /// Hands free places to the library, as far as it takes them.
    pub(super) fn pump(&mut self, port: &Port, tag: u64, operations: &mut Operations) -> Result<(), Fault> {
        while let Some(&slot) = self.free.front() {
            let (place, context) = ((self.address(slot), HEAD + EAGER), operations.context(Part::Came(slot)));
            // SAFETY: a free place of the ring, which stays where it is until its operation is complete.
            let begun = unsafe { port.receive(place, self.ring.registration(), tag, context) }?;
            if !operations.note(begun) {
                break;
            }
            self.posted.extend(self.free.pop_front());
        }
        Ok(())
    }

    /// The head of what came to a place.
    fn head(&self, slot: u8, len: usize) -> Option<Head> {
        let start = self.address(slot);
        if (BRIEF..HEAD).contains(&len) {
            // SAFETY: so many bytes of the ring, which the library has given back.
            let head = unsafe { start.cast::<[u8; BRIEF]>().read_unaligned() };
            return Head::decode_brief(&head, len, &self.last);
        }
        // SAFETY: the same of a head's bytes.
        let head = unsafe { start.cast::<[u8; HEAD]>().read_unaligned() };
        Some(head).filter(|_| len >= HEAD).and_then(|head| Head::decode(&head, len))
    }

    /// So many bytes came to a place of the ring. `each` hears of every head, in order.
    pub(super) fn come(&mut self, slot: u8, len: usize, mut each: impl FnMut(&Head)) -> Result<()> {
        self.filled[usize::from(slot)] = Some(len);
        while let Some(&slot) = self.posted.front()
            && let Some(len) = self.filled[usize::from(slot)].take()
        {
            self.posted.pop_front();
            let head = self.head(slot, len).ok_or_else(nonsense)?;
            each(&head);
            let payload = match head.kind {
                Kind::Short | Kind::Brief => Payload::Here,
                Kind::Long | Kind::Lent | Kind::Pieced => Payload::Waits,
                Kind::News | Kind::Greeting | Kind::Farewell => {
                    self.greeted |= head.kind == Kind::Greeting;
                    self.rung |= head.kind == Kind::Farewell;
                    self.free.push_back(slot);
                    continue;
                }
            };
            if self.items.len() == WINDOW {
                return Err(nonsense());
            }
            self.last = head.tag.body;
            self.items.push_back(Item {
                slot,
                head,
                number: self.came,
                payload,
                asked: 0,
                heard: 0,
                lost: false,
            });
            self.came += 1;
        }
        Ok(())
    }

    /// The first message.
    #[inline]
    pub(super) fn front(&self) -> Front<'_> {
        let Some(item) = self.items.front().filter(|item| item.number < self.believed) else {
            return Front::None;
        };
        match &item.payload {
            Payload::Here => {
                let head = if item.head.kind == Kind::Brief { BRIEF } else { HEAD };
                Front::Whole(&item.head, self.address(item.slot).wrapping_add(head))
            }
            Payload::Waits => Front::Follows(&item.head),
            Payload::Comes(place) => Front::Comes { wanted: matches!(place, Place::Wanted { .. }) },
            Payload::Lies(Place::Own(buffer)) => Front::Whole(&item.head, buffer.at(0)),
            Payload::Lies(Place::Wanted { .. }) => Front::Received,
        }
    }

    /// Lets the first message's payload come to where its reader wants it, if it comes nowhere yet.
    ///
    /// # Safety
    /// The memory must be valid, and nobody may look at it, until the payload [has come](Self::comes_to_reader).
    pub(super) unsafe fn place_at(
        &mut self,
        into: View<'_>,
        port: &Port,
        tag: u64,
        operations: &mut Operations,
    ) -> Result<(), Fault> {
        let Some(item) = self.items.front_mut() else { return Ok(()) };
        // SAFETY: as the caller promises.
        let registration = unsafe { port.register(into.as_ptr(), into.len()) }?;
        let place = Place::Wanted { start: into.as_ptr(), registration };
        // SAFETY: as the caller promises; the registration lasts until the payload has come.
        unsafe { item.ask(place, port, tag, operations) }.0.map(drop)
    }

    /// Lets payloads come to buffers: the first message's, or those of all; and all of those that come in part.
    pub(super) fn place(
        &mut self,
        all: bool,
        port: &Port,
        tag: u64,
        operations: &mut Operations,
    ) -> Result<Result<(), Fault>> {
        let count = if all { self.items.len() } else { 1 };
        for item in self.items.iter_mut().take(count) {
            let place = match std::mem::replace(&mut item.payload, Payload::Waits) {
                Payload::Waits => Place::Own(self.spare.pop().map_or_else(|| Buffer::new(port, SLOT), Ok)?),
                Payload::Comes(place) if item.asked < item.pieces() && !item.lost => place,
                other => {
                    item.payload = other;
                    continue;
                }
            };
            // SAFETY: the buffer's own bytes, or as whoever wanted them has promised; it stays with the message.
            let (asked, unused) = unsafe { item.ask(place, port, tag, operations) };
            if let Some(Place::Own(buffer)) = unused {
                self.spare.push(buffer);
            }
            match asked {
                Ok(true) => {}
                // Others may not pass it.
                Ok(false) => break,
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(()))
    }

    /// A payload has come, or a piece of it, or it is `lost`; says whether its sender might have had it back before.
    pub(super) fn placed(&mut self, part: Part, len: usize, lost: bool) -> Result<bool> {
        let (place, piece) = match part {
            Part::Piece(piece) => (piece / PIECES as u8, piece % PIECES as u8),
            Part::Placed(place) => (place, 0),
            _ => return Err(nonsense()),
        };
        let is_meant = |item: &Item| item.number % WINDOW as u64 == u64::from(place);
        let at = self.items.iter().position(is_meant).ok_or_else(nonsense)?;
        let item = &mut self.items[at];
        item.heard += 1;
        item.lost |= lost || len != item.piece(piece).1;
        if item.lost {
            if item.heard == item.asked {
                self.items.remove(at);
            }
            return if lost { Ok(false) } else { Err(nonsense()) };
        }
        if item.heard == item.pieces() {
            item.payload = match std::mem::replace(&mut item.payload, Payload::Waits) {
                Payload::Comes(place) => Payload::Lies(place),
                _ => return Err(nonsense()),
            };
        }
        Ok(item.head.kind == Kind::Lent)
    }

    /// The payload that comes to its reader's memory, if one does: its operations.
    pub(super) fn comes_to_reader(&self) -> impl Iterator<Item = Part> + '_ {
        let item = self.items.front();
        let item = item.filter(|item| matches!(item.payload, Payload::Comes(Place::Wanted { .. })));
        item.into_iter().flat_map(|item| (0..item.asked).map(|piece| item.part(piece)))
    }

    /// Takes the first message away; false where none lies at hand.
    pub(super) fn release(&mut self) -> bool {
        if !matches!(self.front(), Front::Whole(..) | Front::Received) {
            return false;
        }
        let Some(item) = self.items.pop_front() else { return false };
        self.free.push_back(item.slot);
        if let Payload::Lies(Place::Own(buffer)) = item.payload {
            self.spare.push(buffer);
        }
        self.released += 1;
        true
    }

    /// The library has closed its endpoint: nothing comes any more.
    pub(super) fn forget(&mut self) {
        self.posted.clear();
        self.items.retain(|item| !matches!(item.payload, Payload::Comes(_)));
    }

    /// Whether a view begins in a message that lies here.
    pub(super) fn holds(&self, view: View<'_>) -> bool {
        let own =
            |item: &Item| matches!(&item.payload, Payload::Lies(Place::Own(buffer)) if buffer.holds(view));
        self.ring.holds(view) || self.items.iter().any(own)
    }

    /// Places and payloads that the library has: their operations.
    pub(super) fn expected(&self) -> impl Iterator<Item = Part> + '_ {
        let comes = self.items.iter().filter(|item| matches!(item.payload, Payload::Comes(_)));
        let placed = comes.flat_map(|item| (0..item.asked).map(|piece| item.part(piece)));
        self.posted.iter().map(|slot| Part::Came(*slot)).chain(placed)
    }
}
