//! Messages on their way in.

use std::collections::VecDeque;

use super::head::{HEAD, Head, Kind};
use super::operation::{Buffer, Operations, Part};
use super::{CREDIT, PAYLOAD, RING, SLOT, STRIDE, WINDOW};
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
        _registration: Option<Registration>,
    },
}

/// A message that has come, or whose head has.
struct Item {
    /// Where in the ring.
    slot: u8,
    head: Head,
    number: u64,
    payload: Payload,
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
            let (place, context) =
                ((self.address(slot), STRIDE - PAYLOAD + HEAD), operations.context(Part::Came(slot)));
            // SAFETY: a free place of the ring, which stays where it is until its operation is complete.
            let begun = unsafe { port.receive(place, self.ring.registration(), tag, context) }?;
            if !operations.note(begun) {
                break;
            }
            self.posted.extend(self.free.pop_front());
        }
        Ok(())
    }

    /// So many bytes came to a place of the ring. `each` hears of every head, in order.
    pub(super) fn come(&mut self, slot: u8, len: usize, mut each: impl FnMut(&Head)) -> Result<()> {
        self.filled[usize::from(slot)] = Some(len);
        while let Some(&slot) = self.posted.front()
            && let Some(len) = self.filled[usize::from(slot)].take()
        {
            self.posted.pop_front();
            // SAFETY: a head's bytes of the ring, which the library has given back.
            let head = unsafe { self.address(slot).cast::<[u8; HEAD]>().read_unaligned() };
            let head = Some(head).filter(|_| len >= HEAD).and_then(|head| Head::decode(&head, len));
            let head = head.ok_or_else(nonsense)?;
            each(&head);
            let payload = match head.kind {
                Kind::Short => Payload::Here,
                Kind::Long | Kind::Lent => Payload::Waits,
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
            self.items.push_back(Item { slot, head, number: self.came, payload });
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
            Payload::Here => Front::Whole(&item.head, self.address(item.slot).wrapping_add(HEAD)),
            Payload::Waits => Front::Follows(&item.head),
            Payload::Comes(place) => Front::Comes { wanted: matches!(place, Place::Wanted { .. }) },
            Payload::Lies(Place::Own(buffer)) => Front::Whole(&item.head, buffer.at(0)),
            Payload::Lies(Place::Wanted { .. }) => Front::Received,
        }
    }

    /// Lets the first message's payload come to where its reader wants it; false where it must be asked for again.
    ///
    /// # Safety
    /// The memory must be valid, and nobody may look at it, until the payload [has come](Self::comes_to_reader).
    pub(super) unsafe fn place_at(
        &mut self,
        into: View<'_>,
        port: &Port,
        tag: u64,
        operations: &mut Operations,
    ) -> Result<bool, Fault> {
        let Some(item) = self.items.front_mut() else { return Ok(false) };
        let place = (into.as_ptr(), into.len());
        // SAFETY: as the caller promises.
        let registration = unsafe { port.register(place.0, place.1) }?;
        let context = operations.context(Part::Placed((item.number % WINDOW as u64) as u8));
        // SAFETY: as the caller promises; the registration lasts until the payload has come.
        let begun = unsafe { port.receive(place, registration.as_ref(), tag, context) }?;
        if operations.note(begun) {
            item.payload = Payload::Comes(Place::Wanted { _registration: registration });
        }
        Ok(begun)
    }

    /// Lets payloads come to buffers: the first message's, or those of all.
    pub(super) fn place(
        &mut self,
        all: bool,
        port: &Port,
        tag: u64,
        operations: &mut Operations,
    ) -> Result<Result<(), Fault>> {
        let count = if all { self.items.len() } else { 1 };
        for item in self.items.iter_mut().take(count).filter(|item| matches!(item.payload, Payload::Waits)) {
            let buffer = self.spare.pop().map_or_else(|| Buffer::new(port, SLOT), Ok)?;
            let context = operations.context(Part::Placed((item.number % WINDOW as u64) as u8));
            let place = (buffer.at(0), item.head.len);
            // SAFETY: the buffer's own bytes; it stays with the message until the operation is complete.
            match unsafe { port.receive(place, buffer.registration(), tag, context) } {
                Ok(begun) if operations.note(begun) => item.payload = Payload::Comes(Place::Own(buffer)),
                Ok(_) => {
                    self.spare.push(buffer);
                    break;
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(()))
    }

    /// A payload has come; says whether its sender might have had it back before.
    pub(super) fn placed(&mut self, place: u8, len: usize) -> Result<bool> {
        let number = |item: &&mut Item| item.number % WINDOW as u64 == u64::from(place);
        let item = self.items.iter_mut().find(number).ok_or_else(nonsense)?;
        item.payload = match std::mem::replace(&mut item.payload, Payload::Waits) {
            Payload::Comes(place) if len == item.head.len => Payload::Lies(place),
            _ => return Err(nonsense()),
        };
        Ok(item.head.kind == Kind::Lent)
    }

    /// The payload that comes to its reader's memory, if one does: its operation.
    pub(super) fn comes_to_reader(&self) -> Option<Part> {
        let item = self.items.front()?;
        let comes = matches!(item.payload, Payload::Comes(Place::Wanted { .. }));
        comes.then_some(Part::Placed((item.number % WINDOW as u64) as u8))
    }

    /// A payload does not come any more.
    pub(super) fn give_up(&mut self, place: u8) {
        self.items.retain(|item| item.number % WINDOW as u64 != u64::from(place));
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
        let placed = self.items.iter().filter(|item| matches!(item.payload, Payload::Comes(_)));
        let placed = placed.map(|item| Part::Placed((item.number % WINDOW as u64) as u8));
        self.posted.iter().map(|slot| Part::Came(*slot)).chain(placed)
    }
}
