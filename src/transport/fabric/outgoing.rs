//! Messages on their way out.

use smallvec::SmallVec;

use super::head::{HEAD, Head, Kind};
use super::operation::{Buffer, NEWS, Operations, Part};
use super::{EAGER, PAYLOAD, PLACES, SLOT, STRIDE, WINDOW};
use crate::error::Result;
use crate::kernel;
use crate::memory::View;
use crate::sys::fabric::{Fault, Port, Registration};
use crate::transport::Tag;

/// Where messages go: the endpoint, and the tags that the peer told.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) endpoint: u64,
    pub(super) heads: u64,
    pub(super) bodies: u64,
}

/// How far something has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It waits in this process.
    Waits,
    /// The library has it.
    Goes,
    /// It is gone.
    Gone,
    /// It will never be.
    Lost,
}

/// A message that is not gone yet.
struct Going {
    head: Way,
    /// How many bytes stand behind the head.
    behind: usize,
    body: Option<Body>,
}

/// A payload that follows its head.
struct Body {
    way: Way,
    source: Source,
}

/// Where it lies.
enum Source {
    Own(Buffer, usize),
    Lent(SmallVec<[Piece; 2]>),
}

/// Memory of a caller's, as it was lent.
struct Piece {
    start: *mut u8,
    len: usize,
    registration: Option<Registration>,
}

/// The messages that are not gone yet, in order, and the places in which they are made. Message i has place i modulo
/// [`PLACES`].
pub(super) struct Outgoing {
    places: Buffer,
    going: [Option<Going>; PLACES],
    /// Messages `gone..made` are not gone; up to `begun` the library has taken them.
    made: u64,
    begun: u64,
    gone: u64,
    /// How many the peer has released.
    released: u64,
    /// The length that was reserved, and the buffer, where a place does not hold that much.
    reserved: Option<(usize, Option<Buffer>)>,
    /// Buffers for long messages that nobody uses.
    spare: Vec<Buffer>,
    news: [Way; NEWS as usize],
}

impl Outgoing {
    pub(super) fn new(port: &Port) -> Result<Self> {
        Ok(Self {
            places: Buffer::new(port, PLACES * STRIDE + usize::from(NEWS) * HEAD)?,
            going: [const { None }; PLACES],
            made: 0,
            begun: 0,
            gone: 0,
            released: 0,
            reserved: None,
            spare: Vec::new(),
            news: [Way::Gone; NEWS as usize],
        })
    }

    /// Whether one more message may go.
    pub(super) fn has_room(&self) -> bool {
        self.made - self.released < WINDOW as u64 && self.made - self.gone < PLACES as u64
    }

    /// Whether nothing waits in this process, and nobody reads what was lent.
    pub(super) fn is_empty(&self) -> bool {
        self.gone == self.made && self.news.iter().all(|way| *way == Way::Gone)
    }

    /// Whether something that was lent is still being read.
    pub(super) fn lends(&self) -> bool {
        let lent = |body: &Body| body.way == Way::Goes && matches!(body.source, Source::Lent(_));
        self.going.iter().flatten().any(|going| going.body.as_ref().is_some_and(lent))
    }

    /// How many messages were handed over whole.
    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// How many were made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The peer has said how many messages it released.
    pub(super) fn hear(&mut self, released: u32) {
        // Not fewer than before, and no more than there are: else it was said earlier, or by nobody.
        let more = released.wrapping_sub(self.released as u32);
        if u64::from(more) <= self.made - self.released {
            self.released += u64::from(more);
        }
    }

    fn place(&self, message: u64) -> u8 {
        (message % PLACES as u64) as u8
    }

    fn address(&self, place: u8) -> *mut u8 {
        self.places.at(usize::from(place) * STRIDE + PAYLOAD)
    }

    /// Where to write the next message.
    pub(super) fn reserve(&mut self, port: &Port, len: usize) -> Result<*mut u8> {
        let old = self.reserved.take().and_then(|(_, buffer)| buffer);
        let buffer = match old {
            old if len <= EAGER => {
                self.spare.extend(old);
                None
            }
            Some(old) => Some(old),
            None => Some(self.buffer(port)?),
        };
        let start =
            buffer.as_ref().map_or_else(|| self.address(self.place(self.made)), |buffer| buffer.at(0));
        self.reserved = Some((len, buffer));
        Ok(start)
    }

    fn buffer(&mut self, port: &Port) -> Result<Buffer> {
        self.spare.pop().map_or_else(|| Buffer::new(port, SLOT), Ok)
    }

    /// Queues the message that was written there; false where none of that length was reserved.
    pub(super) fn commit(&mut self, len: usize, tag: &Tag, released: u64) -> bool {
        let Some((reserved, buffer)) = self.reserved.take() else { return false };
        if reserved != len {
            self.spare.extend(buffer);
            return false;
        }
        let body = buffer.map(|buffer| Body { way: Way::Waits, source: Source::Own(buffer, len) });
        let kind = if body.is_some() { Kind::Long } else { Kind::Short };
        self.make(Head { kind, len, released: released as u32, tag: *tag }, body);
        true
    }

    /// Queues a copy of a message.
    pub(super) fn copy(&mut self, port: &Port, payload: View<'_>, tag: &Tag, released: u64) -> Result<()> {
        let place = self.reserve(port, payload.len())?;
        // SAFETY: as many bytes of a free place, which nobody else looks at.
        kernel::copy(&[unsafe { View::from_raw(place, payload.len()) }], payload);
        self.commit(payload.len(), tag, released);
        Ok(())
    }

    /// Queues a message where it lies.
    pub(super) fn lend(
        &mut self,
        port: &Port,
        pieces: &[View<'_>],
        len: usize,
        tag: &Tag,
        released: u64,
    ) -> Result<(), Fault> {
        let piece = |piece: &View<'_>| {
            let (start, len) = (piece.as_ptr(), piece.len());
            // SAFETY: the lender keeps its memory until it is settled, which it is not before this is dropped.
            let registration = unsafe { port.register(start, len) }?;
            Ok(Piece { start, len, registration })
        };
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(piece).collect::<Result<_, _>>()?;
        let body = Body { way: Way::Waits, source: Source::Lent(pieces) };
        self.make(Head { kind: Kind::Lent, len, released: released as u32, tag: *tag }, Some(body));
        Ok(())
    }

    fn make(&mut self, head: Head, body: Option<Body>) {
        let place = self.place(self.made);
        let start = self.address(place).wrapping_sub(HEAD);
        // SAFETY: the head's bytes of a free place, that nobody else looks at.
        unsafe { start.cast::<[u8; HEAD]>().write_unaligned(head.encode()) };
        self.going[usize::from(place)] = Some(Going { head: Way::Waits, behind: head.behind(), body });
        self.made += 1;
    }

    /// Whether something can be said that is no message.
    pub(super) fn can_say(&self) -> bool {
        self.news.contains(&Way::Gone)
    }

    /// Says it, now or when the library takes it.
    pub(super) fn say(&mut self, head: &Head) {
        let Some(free) = self.news.iter().position(|way| *way == Way::Gone) else { return };
        // SAFETY: the bytes of news that are gone.
        unsafe { self.news_at(free as u8).cast::<[u8; HEAD]>().write_unaligned(head.encode()) };
        self.news[free] = Way::Waits;
    }

    fn news_at(&self, news: u8) -> *mut u8 {
        self.places.at(PLACES * STRIDE + usize::from(news) * HEAD)
    }

    /// Hands what waits to the library, as far as it takes it; says whether it took any.
    pub(super) fn pump(
        &mut self,
        port: &Port,
        to: Target,
        operations: &mut Operations,
    ) -> Result<bool, Fault> {
        let mut took = false;
        while self.begun < self.made && self.begin(port, to, operations, &mut took)? {
            self.begun += 1;
        }
        for news in 0..NEWS {
            if self.news[usize::from(news)] != Way::Waits {
                continue;
            }
            let stretch = (self.news_at(news), HEAD, self.places.registration());
            let context = operations.context(Part::News(news));
            // SAFETY: news that are not gone stay as they are.
            if operations.note(unsafe { port.send(&[stretch], to.endpoint, to.heads, context) }?) {
                self.news[usize::from(news)] = Way::Goes;
                took = true;
            }
        }
        Ok(took)
    }

    /// Hands the next message to the library; false where it does not take all of it.
    fn begin(
        &mut self,
        port: &Port,
        to: Target,
        operations: &mut Operations,
        took: &mut bool,
    ) -> Result<bool, Fault> {
        let place = self.place(self.begun);
        let start = self.address(place).wrapping_sub(HEAD);
        let Some(going) = &mut self.going[usize::from(place)] else { return Ok(false) };
        if going.head == Way::Waits {
            let stretch = (start, HEAD + going.behind, self.places.registration());
            let context = operations.context(Part::Sent(place));
            // SAFETY: a place whose message is not gone stays as it is.
            if !operations.note(unsafe { port.send(&[stretch], to.endpoint, to.heads, context) }?) {
                return Ok(false);
            }
            (going.head, *took) = (Way::Goes, true);
        }
        if let Some(body) = &mut going.body {
            let context = operations.context(Part::Body(place));
            // SAFETY: a buffer that its message has, or memory that its lender keeps until it is settled.
            if !operations.note(unsafe { port.send(&body.stretches(), to.endpoint, to.bodies, context) }?) {
                return Ok(false);
            }
            (body.way, *took) = (Way::Goes, true);
        }
        Ok(true)
    }

    /// A head has gone, with what stands behind it; or it is `lost`.
    pub(super) fn sent(&mut self, place: u8, lost: bool) {
        if let Some(going) = &mut self.going[usize::from(place)] {
            going.head = if lost { Way::Lost } else { Way::Gone };
        }
        self.advance();
    }

    /// The same of a payload that followed its head.
    pub(super) fn body_sent(&mut self, place: u8, lost: bool) {
        if let Some(Going { body: Some(body), .. }) = &mut self.going[usize::from(place)] {
            body.way = if lost { Way::Lost } else { Way::Gone };
        }
        self.advance();
    }

    /// News have gone.
    pub(super) fn said(&mut self, news: u8) {
        self.news[usize::from(news)] = Way::Gone;
    }

    fn advance(&mut self) {
        while self.gone < self.begun {
            let place = usize::from(self.place(self.gone));
            let whole = |going: &Going| {
                going.head == Way::Gone && going.body.as_ref().is_none_or(|body| body.way == Way::Gone)
            };
            if !self.going[place].as_ref().is_some_and(whole) {
                break;
            }
            if let Some(Body { source: Source::Own(buffer, _), .. }) =
                self.going[place].take().and_then(|going| going.body)
            {
                self.spare.push(buffer);
            }
            self.gone += 1;
        }
    }

    /// Forgets what the library has not taken.
    pub(super) fn clear(&mut self) {
        for message in self.begun..self.made {
            let place = usize::from(self.place(message));
            // Of the first one the library may have the head.
            match &mut self.going[place] {
                Some(going) if going.head != Way::Waits => going.body = None,
                going => *going = None,
            }
        }
        self.reserved = None;
        self.news.iter_mut().filter(|way| **way == Way::Waits).for_each(|way| *way = Way::Gone);
    }

    /// The library has closed its endpoint: what it had not sent is lost.
    pub(super) fn forget(&mut self) {
        for going in self.going.iter_mut().flatten() {
            if let Some(body) = going.body.as_mut().filter(|body| body.way == Way::Goes) {
                body.way = Way::Lost;
            }
        }
    }

    /// Whether a view begins in memory of these messages' own.
    pub(super) fn holds(&self, view: View<'_>) -> bool {
        self.places.holds(view) || self.spare.iter().any(|buffer| buffer.holds(view))
    }
}

impl Body {
    fn stretches(&self) -> SmallVec<[(*mut u8, usize, Option<&Registration>); 2]> {
        match &self.source {
            Source::Own(buffer, len) => [(buffer.at(0), *len, buffer.registration())].into_iter().collect(),
            Source::Lent(pieces) => {
                pieces.iter().map(|piece| (piece.start, piece.len, piece.registration.as_ref())).collect()
            }
        }
    }
}
