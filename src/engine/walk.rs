//! One call's way through its route: cursors that advance as messages and credit come.
//!
//! ```text
//! lane 0   round 0: ■ ■ ■ ■   round 1: ■ ■ ▷ □   round 2: □ □ □ □
//! lane 1   round 0: ■ ■ ▷ □   …
//! ```
//! ■ done, ▷ the cursor, □ to come. A step happens whole or not at all, so a cursor is all the state
//! there is. Lanes advance in turn, on the calling thread.

use std::iter;
use std::ops::Range;

use smallvec::{SmallVec, smallvec};

use super::chart::{Bytes, Leg, Place};
use super::couple;
use super::extent::Extents;
use super::link::{Links, Wanted};
use super::route::{Hop, Move, Operand, Route};
use super::signature::Signature;
use super::{Course, Request};
use crate::CHECKED;
use crate::error::{Error, Result};
use crate::health::{self, Peers, Standing, WORTH_RECORDING};
use crate::kernel;
use crate::memory::View;
use crate::plan::{Memory, Span};
use crate::transport::{Lent, Received, Size, Tag, Terms};

/// Below this many bytes a copy is cheaper than lending and waiting for the loan's end, or than reading one message
/// at a time.
pub(super) const WORTH_LENDING: usize = 16 << 10;

/// From how many bytes of a step on reading them where they lie beats a copy between. (2 ranks of Zen 4, all-gather in
/// place in memory allocated together, copied and lent: 117 and 57 us of 2 MiB each, 28 and 23 of 512 KiB; with the cores
/// apart 153 and 181, 43 and 52; 2026-11-28, `benches/versus/run`.)
const MUCH: usize = 1 << 20;

/// What one call works on.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What the caller wants.
    pub request: &'a Request<'a>,
    /// Where the blocks lie.
    pub extents: &'a Extents<'a>,
    /// What it works on, by [`Memory::kind`]. An output that is more than the caches hold, and apart from the
    /// input, is written past them.
    pub memories: [View<'a>; Memory::KINDS],
    /// Whether its vectors are more than the caches hold.
    pub overflows: bool,
}

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything is done.
    Done,
    /// Something moved.
    Moved,
    /// Nothing can move before a message or credit comes.
    Blocked,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// That link, for what.
    Link(u32, Wanted),
    /// A token from a lane of this rank.
    Lane(u8),
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    round: usize,
    step: usize,
    blocker: Option<Blocker>,
    done: bool,
}

/// Where the cursors of one call stand.
#[derive(Debug, Default)]
pub struct Walk {
    cursors: SmallVec<[Cursor; 2]>,
    tokens: Tokens,
}

/// Tokens posted and not yet joined, by (from, to) lane.
#[derive(Debug, Default)]
struct Tokens(SmallVec<[((u8, u8), usize); 2]>);

/// The outcome of trying one step.
pub(super) enum Tried {
    Done,
    Blocked(Blocker),
}

impl Hop {
    /// Tries a step that needs no other lane.
    #[inline]
    pub(super) fn attempt(&self, leg: &Leg, round: usize, links: &Links, call: &Call<'_>) -> Result<Tried> {
        match self {
            Self::Move(step) => Moving { step, round, call }.attempt(leg, links),
            Self::Signal(to) => signal(links, *to, call),
            Self::Await(from) => await_signal(links, *from, call),
            Self::Post(_) | Self::Join(_) => {
                unreachable!("the prover refuses tokens where there is one lane")
            }
        }
    }

    /// Where its bytes lie in a round of a call.
    pub(super) fn leg(&self, extents: &Extents<'_>, round: usize) -> Leg {
        match self {
            Self::Move(step) => Leg::new(step, extents, round),
            _ => Leg::default(),
        }
    }
}

impl Walk {
    /// What is left of a walk of one lane and one round, from a step on.
    #[cold]
    pub(super) fn from_step(step: usize) -> Self {
        let cursor = Cursor { step, ..Cursor::default() };
        Self { cursors: smallvec![cursor], tokens: Tokens::default() }
    }

    /// A walk that has not begun: each rail with its first round.
    pub fn new(route: &Route) -> Self {
        let lanes = route.lanes.len();
        let mut cursors = match lanes {
            ..=2 => SmallVec::from_buf_and_len([Cursor::default(); 2], lanes),
            _ => smallvec![Cursor::default(); lanes],
        };
        for (at, cursor) in cursors.iter_mut().enumerate().skip(lanes / route.rails) {
            cursor.round = at * route.rails / lanes;
        }
        Self { cursors, tokens: Tokens::default() }
    }

    /// Takes every step that can be taken now.
    pub fn advance(
        &mut self,
        course: Course<'_>,
        links: &Links,
        call: &Call<'_>,
        standing: &Standing,
    ) -> Result<Progress> {
        let Course { route, chart } = course;
        let Self { cursors, tokens } = self;
        let (mut moved, mut done) = (false, true);
        for (lane, (cursor, hops)) in cursors.iter_mut().zip(&route.lanes).enumerate() {
            let legs = chart.and_then(|chart| chart.legs.get(lane)).map_or(&[][..], Vec::as_slice);
            moved |= cursor.advance(lane as u8, (hops, legs), tokens, (links, standing), call)?;
            done &= cursor.done;
        }
        if moved && !done {
            return Ok(Progress::Moved);
        }
        // Asked while blocked, too: what waits in this process must go out, or nobody would answer.
        let settled = links.settled(&route.links)?;
        Ok(if done && settled { Progress::Done } else { Progress::Blocked })
    }

    /// Whether a step that is waited for needs a message from a rank of this core.
    pub fn needs_neighbour(&self, route: &Route, links: &Links) -> bool {
        self.sources(route).any(|at| links.needs_neighbour(at))
    }

    /// The link that blocks each unfinished lane.
    pub fn blockers(&self) -> impl Iterator<Item = u32> + '_ {
        self.standing().filter_map(|(.., blocker)| match blocker {
            Some(Blocker::Link(at, _)) => Some(at),
            _ => None,
        })
    }

    /// These, and all others of the same steps from which nothing has come: a rank that is gone is found also while one that
    /// lives is looked for first.
    pub fn waited_for(&self, route: &Route, links: &Links) -> Vec<u32> {
        let missing = self.sources(route).filter(|&at| !matches!(links.peek(at), Ok(Some(_))));
        let mut waited: Vec<u32> = self.blockers().chain(missing).collect();
        waited.sort_unstable();
        waited.dedup();
        waited
    }

    /// The links whose messages the steps take that unfinished lanes stand at.
    fn sources<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = u32> + 'a {
        self.standing().flat_map(|(lane, _, step, _)| {
            let (sources, from) = match route.lanes[lane].get(step) {
                Some(Hop::Move(step)) => (&step.sources[..], None),
                Some(Hop::Await(from)) => (&[][..], Some(*from)),
                _ => (&[][..], None),
            };
            let link = |source: &Operand| match *source {
                Operand::Link(at) => Some(at),
                Operand::Local(_) => None,
            };
            sources.iter().filter_map(link).chain(from)
        })
    }

    /// Where each unfinished lane stands: lane, round, step and what it waits for.
    pub fn standing(&self) -> impl Iterator<Item = (usize, usize, usize, Option<Blocker>)> + '_ {
        let open = self.cursors.iter().enumerate().filter(|(_, cursor)| !cursor.done);
        open.map(|(lane, cursor)| (lane, cursor.round, cursor.step, cursor.blocker))
    }
}

impl Cursor {
    fn advance(
        &mut self,
        lane: u8,
        (hops, legs): (&[Hop], &[Leg]),
        tokens: &mut Tokens,
        (links, standing): (&Links, &Standing),
        call: &Call<'_>,
    ) -> Result<bool> {
        let (mut moved, rails) = (false, call.extents.rails());
        while !self.done {
            if self.round >= call.extents.rounds() {
                self.done = true;
                break;
            }
            let Some(hop) = hops.get(self.step) else {
                self.step = 0;
                self.round += rails;
                continue;
            };
            if couple::bridges(self.step, self.round, hops, links, call)? {
                self.record(lane, &hop.leg(call.extents, self.round), links, standing);
                (self.round, self.step) = (self.round + rails, 0);
                self.record(lane, &hops[0].leg(call.extents, self.round), links, standing);
                self.step = 1;
                moved = true;
                continue;
            }
            let own;
            let leg = match legs.get(self.step) {
                Some(leg) if self.round == 0 => leg,
                _ => {
                    own = hop.leg(call.extents, self.round);
                    &own
                }
            };
            let tried = match hop {
                Hop::Post(to) => tokens.post(lane, *to),
                Hop::Join(from) => tokens.join(*from, lane),
                _ => hop.attempt(leg, self.round, links, call)?,
            };
            match tried {
                Tried::Done => {
                    self.record(lane, leg, links, standing);
                    self.step += 1;
                    moved = true;
                }
                Tried::Blocked(blocker) => {
                    self.blocker = Some(blocker);
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Has it recorded what the step moved, if that is much.
    #[inline(always)]
    fn record(&self, lane: u8, leg: &Leg, links: &Links, standing: &Standing) {
        if CHECKED && leg.len >= WORTH_RECORDING {
            let first = |places: &[Place]| places.iter().find_map(Place::link).map(|at| links.port(at).peer);
            let peers = Peers::new(first(&leg.sources), first(&leg.places));
            let place = (lane, self.round as u32, self.step as u32);
            standing.moved(health::Move { place, peers, bytes: leg.len });
        }
    }
}

impl Tokens {
    fn post(&mut self, from: u8, to: u8) -> Tried {
        *self.of((from, to)) += 1;
        Tried::Done
    }

    fn join(&mut self, from: u8, to: u8) -> Tried {
        let tokens = self.of((from, to));
        if *tokens == 0 {
            return Tried::Blocked(Blocker::Lane(from));
        }
        *tokens -= 1;
        Tried::Done
    }

    fn of(&mut self, pair: (u8, u8)) -> &mut usize {
        let at = self.0.iter().position(|(known, _)| *known == pair).unwrap_or_else(|| {
            self.0.push((pair, 0));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

/// Sends a message without a payload.
fn signal(links: &Links, at: u32, call: &Call<'_>) -> Result<Tried> {
    if links.reserve(at, 0)?.is_none() {
        return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Credit)));
    }
    links.commit(at, 0, call.request.tag)?;
    Ok(Tried::Done)
}

/// Takes a message without a payload.
fn await_signal(links: &Links, at: u32, call: &Call<'_>) -> Result<Tried> {
    match links.peek(at)? {
        None => Ok(Tried::Blocked(Blocker::Link(at, Wanted::Message))),
        Some(message) if message.is(call.request.tag, 0) => {
            links.release(at)?;
            Ok(Tried::Done)
        }
        Some(_) => Err(mismatch(call.request.signature, at, links)),
    }
}

/// The peeked message is none of this call's.
#[cold]
pub(super) fn mismatch(signature: &Signature, at: u32, links: &Links) -> Error {
    signature.mismatch(links.at(at).body(), links.port(at).peer as usize)
}

/// A step of a call, in one round.
pub(super) struct Moving<'r, 'c> {
    pub(super) step: &'r Move,
    pub(super) round: usize,
    pub(super) call: &'r Call<'c>,
}

/// As many as a step of eight ranks has.
type Few<T> = SmallVec<[T; 8]>;

impl<'c> Moving<'_, 'c> {
    // Apart from the loops over lanes and rounds, which would keep all of its values alive.
    #[inline(never)]
    fn attempt(&self, leg: &Leg, links: &Links) -> Result<Tried> {
        // Later rounds send nothing where a block has run out; both sides know which.
        if self.round > 0 && leg.len == 0 {
            return Ok(Tried::Done);
        }
        let of_edge;
        let tag = match self.call.request.edges {
            false => self.call.request.tag,
            true => {
                of_edge = self.signature().tag();
                &of_edge
            }
        };
        if self.step.lends
            && leg.len >= WORTH_LENDING
            && let Some(tried) = self.lend(links, tag)?
        {
            return Ok(tried);
        }
        if let Some(tried) = self.pass(leg, tag, links)? {
            return Ok(tried);
        }
        let none = View::empty();
        // For the shapes of most steps loops are unrolled.
        match (&leg.sources[..], &leg.places[..]) {
            (from @ [_], into @ [_]) => {
                self.shift((from, &mut [none; 1]), (into, &mut [none; 1]), leg.len, tag, links)
            }
            (from @ [_, _], into @ [_]) => {
                self.shift((from, &mut [none; 2]), (into, &mut [none; 1]), leg.len, tag, links)
            }
            (from @ [_, _], into @ [_, _]) => {
                self.shift((from, &mut [none; 2]), (into, &mut [none; 2]), leg.len, tag, links)
            }
            (from, into) => {
                let (mut sources, mut places) =
                    (Few::from_elem(none, from.len()), Few::from_elem(none, into.len()));
                self.shift((from, &mut sources), (into, &mut places), leg.len, tag, links)
            }
        }
    }

    /// Moves one block between a vector and a link, if that is all the step does; nothing where the message is to
    /// be peeked.
    fn pass(&self, leg: &Leg, tag: &Tag, links: &Links) -> Result<Option<Tried>> {
        if self.step.finish || self.step.span.count != 1 {
            return Ok(None);
        }
        let view = |Bytes(kind, bytes): &Bytes| self.call.memories[*kind].part(bytes.clone());
        let (done, blocker) = match (&leg.sources[..], &leg.places[..]) {
            ([Place::Bytes(from)], &[Place::Link(to)]) => {
                (links.send(to, view(from), tag)?, Blocker::Link(to, Wanted::Credit))
            }
            // Passed on from where it is stored; not begun before that can be done at once.
            (&[Place::Link(from)], [Place::Bytes(into), peers @ ..])
                if leg.len >= WORTH_LENDING && links.at(from).limits().receives =>
            {
                for to in peers.iter().filter_map(Place::link) {
                    if links.reserve(to, leg.len)?.is_none() {
                        return Ok(Some(Tried::Blocked(Blocker::Link(to, Wanted::Credit))));
                    }
                }
                let received = links.receive(from, view(into), tag)?;
                if received == Received::Peek {
                    return Ok(None);
                }
                let done = received == Received::Yes;
                for to in peers.iter().filter_map(Place::link).filter(|_| done) {
                    links.send(to, view(into), tag)?;
                }
                (done, Blocker::Link(from, Wanted::Message))
            }
            _ => return Ok(None),
        };
        Ok(Some(if done { Tried::Done } else { Tried::Blocked(blocker) }))
    }

    /// Moves the leg's bytes, if all of them can be moved: messages whole, vectors by their first block.
    /// There is room for a view of each place.
    #[inline(always)]
    fn shift<'l>(
        &self,
        (sources, from): (&[Place], &mut [View<'l>]),
        (places, into): (&[Place], &mut [View<'l>]),
        len: usize,
        tag: &Tag,
        links: &'l Links,
    ) -> Result<Tried>
    where
        'c: 'l,
    {
        for (source, view) in iter::zip(sources, &mut *from) {
            *view = match source {
                Place::Bytes(Bytes(kind, bytes)) => self.call.memories[*kind].part(bytes.clone()),
                Place::Link(at) => match links.peek(*at)? {
                    Some(message) if message.is(tag, len) => message.payload,
                    Some(_) => return Err(mismatch(&self.signature(), *at, links)),
                    None => return Ok(Tried::Blocked(Blocker::Link(*at, Wanted::Message))),
                },
            };
        }
        for (place, view) in iter::zip(places, &mut *into) {
            *view = match place {
                Place::Bytes(Bytes(kind, bytes)) => self.call.memories[*kind].part(bytes.clone()),
                Place::Link(at) => {
                    let answers = self.step.answers;
                    let room = if answers { links.answer(*at, len) } else { links.reserve(*at, len) };
                    match room? {
                        Some(slot) => slot,
                        None => return Ok(Tried::Blocked(Blocker::Link(*at, Wanted::Credit))),
                    }
                }
            };
        }
        match self.step.span.count {
            1 => self.call.request.combine(into, from, self.step.finish),
            _ => self.combine_blocks(into, from),
        }
        for place in places {
            if let Place::Link(at) = place {
                links.commit(*at, len, tag)?;
            }
        }
        for source in sources {
            if let Place::Link(at) = source {
                links.release(*at)?;
            }
        }
        Ok(Tried::Done)
    }

    /// Where the `index`-th block of a span lies, in bytes of its memory.
    #[inline]
    fn piece(&self, span: Span, index: u32) -> Range<usize> {
        self.call.extents.block(span, index, self.round)
    }

    /// The call's signature; where ranks know only their own edges, with the edge's count in it.
    fn signature(&self) -> Signature {
        let Call { request, extents, .. } = self.call;
        if !request.edges {
            return *request.signature;
        }
        let span = self.step.span;
        let blocks = span.blocks(extents.blocks() as u32);
        let counts = blocks.map(|block| extents.count(span.memory, block as usize));
        Signature { count: counts.sum::<usize>() as u64, ..*request.signature }
    }

    /// The `index`-th block of a span.
    pub(super) fn view(&self, span: Span, index: u32) -> View<'c> {
        self.call.memories[span.memory.kind()].part(self.piece(span, index))
    }

    /// Lends what the step sends, and copies what it keeps; nothing where the message must be copied, too.
    #[inline(never)]
    pub(super) fn lend(&self, links: &Links, tag: &Tag) -> Result<Option<Tried>> {
        let (Move { sources, places, exchanges, gives, .. }, Request { input, output, reducer, .. }) =
            (self.step, self.call.request);
        let (kept, to) = match places[..] {
            [Operand::Link(to)] => (None, to),
            [Operand::Local(kept), Operand::Link(to)] => (Some(kept), to),
            _ => return Ok(None),
        };
        let [Operand::Local(span)] = sources[..] else { return Ok(None) };
        let blocks = |span: Span| (0..span.count).map(move |index| self.view(span, index));
        let pieces: Few<View<'_>> = blocks(span).collect();
        let rounds = self.call.extents.rounds();
        let size = match rounds * pieces.iter().map(|piece| piece.len()).sum::<usize>() {
            bytes if bytes < MUCH || !exchanges => Size::Little,
            _ if self.call.overflows => Size::Huge,
            // Who combines what it claims stores the result there.
            _ if reducer.is_some() => Size::Little,
            _ => Size::Much,
        };
        let in_place = input.same_place(*output) && input.len() == output.len();
        let whole = if span.memory == Memory::Input { *input } else { *output };
        let terms = if *gives && in_place { Terms::Answer { whole } } else { Terms::Read { whole, size } };
        Ok(match links.lend(to, &pieces, terms, tag)? {
            Lent::Yes => {
                for (into, from) in iter::zip(kept.into_iter().flat_map(blocks), &pieces) {
                    kernel::copy(&[into], *from);
                }
                Some(Tried::Done)
            }
            Lent::Later => Some(Tried::Blocked(Blocker::Link(to, Wanted::Credit))),
            Lent::Never => None,
        })
    }

    /// Combines block by block: a message holds its span's blocks one after the other.
    #[inline(never)]
    fn combine_blocks<'v>(&self, into: &[View<'v>], from: &[View<'v>])
    where
        'c: 'v,
    {
        let Move { sources, places, span, finish, .. } = self.step;
        let mut start = 0;
        for index in 0..span.count {
            let packed = start..start + self.piece(*span, index).len();
            start = packed.end;
            let blocks = |operands: &[Operand], whole: &[View<'v>]| -> Few<View<'v>> {
                let block = |(operand, whole): (&Operand, &View<'v>)| match operand {
                    Operand::Local(span) => self.view(*span, index),
                    Operand::Link(_) => whole.part(packed.clone()),
                };
                iter::zip(operands, whole).map(block).collect()
            };
            self.call.request.combine(&blocks(places, into), &blocks(sources, from), *finish);
        }
    }
}
