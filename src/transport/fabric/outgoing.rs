//! Messages on their way out.

use smallvec::SmallVec;

use super::head::{BRIEF, HEAD, Head, Kind};
use super::operation::{Buffer, NEWS, Operations, Part};
use super::{EAGER, PAYLOAD, PIECE, PLACES, SLOT, STRIDE, WINDOW};
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
    /// How many bytes have gone, where it goes in pieces.
    sent: Option<usize>,
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

/// The messages that are not gone yet, in order, and the places in which they are made: one after the other, modulo
/// [`PLACES`].
pub(super) struct Outgoing {
    places: Buffer,
    going: [Option<Going>; PLACES],
    /// Messages `gone..made` are not gone; up to `begun` the library has taken them.
    made: u64,
    begun: u64,
    gone: u64,
    /// The message that has the first place. Where all are gone it is the next one, so that few places are touched.
    base: u64,
    /// The body of the last message's tag.
    last: [u64; 4],
    /// How many the peer has released.
    released: u64,
    /// The length that was reserved, and the buffer, where a place does not hold that much.
    reserved: Option<(usize, Option<Buffer>)>,
    /// Buffers for long messages that nobody uses.
    spare: Vec<Buffer>,
    news: [Way; NEWS as usize],
    /// How many bytes at most are injected: what was is in the peer's memory, and nobody waits to hear of it.
    injects: usize,
}

impl Outgoing {
    pub(super) fn new(port: &Port, injects: usize) -> Result<Self> {
        Ok(Self {
            places: Buffer::new(port, PLACES * STRIDE + usize::from(NEWS) * HEAD)?,
            going: [const { None }; PLACES],
            made: 0,
            begun: 0,
            gone: 0,
            base: 0,
            last: [0; 4],
            released: 0,
            reserved: None,
            spare: Vec::new(),
            news: [Way::Gone; NEWS as usize],
            injects,
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
        ((message - self.base) % PLACES as u64) as u8
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
        let pieced = self.goes_in_pieces(len);
        let start = self.address(self.place(self.made));
        let source = match buffer {
            Some(buffer) => Some(Source::Own(buffer, len)),
            None => pieced.then(|| Source::lent(start, len)),
        };
        let sent = pieced.then_some(0);
        let kind = match (&source, pieced) {
            (_, true) => Kind::Pieced,
            (Some(_), false) => Kind::Long,
            (None, false) => Kind::Short,
        };
        let body = source.map(|source| Body { way: Way::Waits, source, sent });
        self.make(Head { kind, len, released: released as u32, tag: *tag }, body);
        true
    }

    /// Whether the next message may be [injected](Self::inject): it is short, and none is queued.
    #[inline]
    pub(super) fn injects(&self, len: usize) -> bool {
        HEAD + len <= self.injects.min(HEAD + EAGER) && self.gone == self.made
    }

    /// Has a message copied to the peer at once that was [reserved](Self::reserve), or is `copied` to where that would be;
    /// false where it must be queued.
    #[inline]
    pub(super) fn inject(
        &mut self,
        port: &Port,
        to: Target,
        copied: Option<View<'_>>,
        head: Head,
    ) -> Result<bool, Fault> {
        let place = self.address(self.place(self.made));
        // SAFETY: a free place, which nobody else looks at: as many bytes as the payload has, and a head's before them.
        let begun = unsafe {
            if let Some(payload) = copied {
                kernel::copy(&[View::from_raw(place, head.len)], payload);
            }
            let len = if let Some(brief) = head.encode_brief(&self.last) {
                place.wrapping_sub(BRIEF).cast::<[u8; BRIEF]>().write_unaligned(brief);
                BRIEF
            } else {
                place.wrapping_sub(HEAD).cast::<[u8; HEAD]>().write_unaligned(head.encode());
                HEAD
            };
            port.inject((place.wrapping_sub(len), len + head.len), to.endpoint, to.heads)?
        };
        if begun {
            self.made += 1;
            (self.begun, self.gone, self.base) = (self.made, self.made, self.made);
            (self.last, self.reserved) = (head.tag.body, None);
        }
        Ok(begun)
    }

    /// Whether so many bytes are reserved in a place.
    #[inline]
    pub(super) fn is_reserved(&self, len: usize) -> bool {
        matches!(self.reserved, Some((reserved, None)) if reserved == len)
    }

    /// Queues a copy of a message.
    pub(super) fn copy(&mut self, port: &Port, payload: View<'_>, tag: &Tag, released: u64) -> Result<()> {
        let place = self.reserve(port, payload.len())?;
        // SAFETY: as many bytes of a free place, which nobody else looks at.
        kernel::copy(&[unsafe { View::from_raw(place, payload.len()) }], payload);
        self.commit(payload.len(), tag, released);
        Ok(())
    }

    /// Whether a message's payload, copied in any case, goes in pieces: these are in the peer's memory at once, where the
    /// provider would have the peer fetch it by a system call. Each takes one of the places that the peer's provider has
    /// for what its process has not asked for; so few do at a time.
    #[inline]
    pub(super) fn goes_in_pieces(&self, len: usize) -> bool {
        let some = self.injects.saturating_sub(HEAD) + 1..=EAGER;
        self.injects >= PIECE && some.contains(&len) && self.made - self.released < 2
    }

    /// Queues a message where it lies, to go in pieces.
    pub(super) fn lend_pieces(&mut self, payload: View<'_>, tag: &Tag, released: u64) {
        let len = payload.len();
        let source = Source::lent(payload.as_ptr(), len);
        let head = Head { kind: Kind::Pieced, len, released: released as u32, tag: *tag };
        self.make(head, Some(Body { way: Way::Waits, source, sent: Some(0) }));
    }

    /// Copies what the library has not taken of the last message, which was [lent](Self::lend_pieces): its memory goes back.
    pub(super) fn keep(&mut self, port: &Port) -> Result<()> {
        if self.begun == self.made {
            return Ok(());
        }
        let buffer = self.buffer(port)?;
        let place = usize::from(self.place(self.made - 1));
        if let Some(Going { body: Some(body), .. }) = &mut self.going[place]
            && let Source::Lent(pieces) = &body.source
            && let [piece] = &pieces[..]
        {
            let len = piece.len;
            // SAFETY: what was lent is still there, and nobody looks at a spare buffer.
            unsafe { piece.start.copy_to_nonoverlapping(buffer.at(0), len) };
            body.source = Source::Own(buffer, len);
        }
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
        let body = Body { way: Way::Waits, source: Source::Lent(pieces), sent: None };
        self.make(Head { kind: Kind::Lent, len, released: released as u32, tag: *tag }, Some(body));
        Ok(())
    }

    fn make(&mut self, head: Head, body: Option<Body>) {
        self.last = head.tag.body;
        let place = self.place(self.made);
        let start = self.address(place).wrapping_sub(HEAD);
        // SAFETY: the head's bytes of a free place, that nobody else looks at.
        unsafe { start.cast::<[u8; HEAD]>().write_unaligned(head.encode()) };
        self.going[usize::from(place)] = Some(Going { head: Way::Waits, behind: head.behind(), body });
        self.made += 1;
    }

    /// Whether something waits to be handed to the library.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        self.begun < self.made || self.news.contains(&Way::Waits)
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
        self.advance();
        for news in 0..NEWS {
            if self.news[usize::from(news)] != Way::Waits {
                continue;
            }
            let stretch = (self.news_at(news), HEAD, self.places.registration());
            let context = operations.context(Part::News(news));
            if HEAD <= self.injects {
                // SAFETY: the bytes of these news.
                if unsafe { port.inject((stretch.0, HEAD), to.endpoint, to.heads) }? {
                    (self.news[usize::from(news)], took) = (Way::Gone, true);
                }
                continue;
            }
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
            let len = HEAD + going.behind;
            let injects = len <= self.injects;
            // SAFETY: a place whose message is not gone stays as it is.
            let begun = unsafe {
                if injects {
                    port.inject((start, len), to.endpoint, to.heads)?
                } else {
                    let stretch = (start, len, self.places.registration());
                    let context = operations.context(Part::Sent(place));
                    operations.note(port.send(&[stretch], to.endpoint, to.heads, context)?)
                }
            };
            if !begun {
                return Ok(false);
            }
            (going.head, *took) = (if injects { Way::Gone } else { Way::Goes }, true);
        }
        if let Some(Body { way, source, sent: Some(sent) }) = &mut going.body {
            let (start, len) = source.start();
            while *sent < len {
                let piece = (start.wrapping_add(*sent), PIECE.min(len - *sent));
                // SAFETY: a part of a buffer or place that its message has, or of memory that its lender keeps until then.
                if !unsafe { port.inject(piece, to.endpoint, to.bodies) }? {
                    return Ok(false);
                }
                *sent += piece.1;
            }
            *way = Way::Gone;
        } else if let Some(body) = &mut going.body {
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
        if self.gone == self.made && self.reserved.is_none() {
            self.base = self.made;
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

impl Source {
    fn lent(start: *mut u8, len: usize) -> Self {
        Self::Lent([Piece { start, len, registration: None }].into_iter().collect())
    }

    /// Its first stretch.
    fn start(&self) -> (*mut u8, usize) {
        match self {
            Self::Own(buffer, len) => (buffer.at(0), *len),
            Self::Lent(pieces) => (pieces[0].start, pieces[0].len),
        }
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
