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

use super::Request;
use super::chart::Leg;
use super::extent::Extents;
use super::link::{Links, Wanted};
use super::route::{Hop, Move, Operand, Route};
use super::signature::Signature;
use crate::error::{Error, Kind, Result};
use crate::kernel;
use crate::memory::View;
use crate::plan::{Memory, Span};
use crate::transport::Tag;

/// Below this many bytes a copy is cheaper than lending and waiting for the loan's end.
const WORTH_LENDING: usize = 16 << 10;

/// What one call works on.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What the caller wants.
    pub request: &'a Request<'a>,
    /// Where the blocks lie.
    pub extents: &'a Extents<'a>,
    /// The engine's own memory.
    pub scratch: View<'a>,
    /// What all ranks see, where the plan has it.
    pub board: View<'a>,
    /// Whether the output is written past the caches: it is more than they hold, and apart from the input.
    pub streams: bool,
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
enum Tried {
    Done,
    Blocked(Blocker),
}

/// Walks a plan of one lane as far as one comes without more than `spins` looks at any step. Then either
/// everything is done, and there is no walk; or it is returned as it stands. Nearly all of what a small call
/// costs is spent here, so nothing is kept that only a walk with several lanes, or a rest, would need.
#[inline(always)]
pub(super) fn sprint(route: &Route, links: &Links, call: &Call<'_>, spins: u32) -> Result<Option<Walk>> {
    let ([hops], true) = (route.lanes.as_slice(), route.prompt) else { return Ok(Some(Walk::new(route))) };
    let legs = route.chart.as_ref().map_or(&[][..], |chart| chart.legs[0].as_slice());
    let rounds = call.extents.rounds();
    for round in 0..rounds {
        for (step, hop) in hops.iter().enumerate() {
            let mut looks = 0;
            while let Tried::Blocked(_) = hop.attempt(legs.get(step), round, links, call)? {
                looks += 1;
                if looks > spins {
                    let cursor = Cursor { round, step, blocker: None, done: false };
                    return Ok(Some(Walk::of_one_lane(cursor)));
                }
                std::hint::spin_loop();
            }
        }
    }
    let cursor = Cursor { round: rounds, step: 0, blocker: None, done: true };
    Ok(if links.settled(&route.links)? { None } else { Some(Walk::of_one_lane(cursor)) })
}

impl Hop {
    /// Tries a step that needs no other lane; `leg` is that of the first round, if it is known.
    #[inline]
    fn attempt(&self, leg: Option<&Leg>, round: usize, links: &Links, call: &Call<'_>) -> Result<Tried> {
        let step = match self {
            Self::Move(step) => step,
            Self::Signal(to) => return signal(links, *to, call),
            Self::Await(from) => return await_signal(links, *from, call),
            Self::Post(_) | Self::Join(_) => {
                unreachable!("the prover refuses tokens where there is one lane")
            }
        };
        let moving = Moving { step, round, call };
        match leg {
            Some(leg) if round == 0 => moving.attempt(leg, links),
            _ => moving.attempt(&Leg::new(step, call.extents, round), links),
        }
    }
}

impl Walk {
    fn of_one_lane(cursor: Cursor) -> Self {
        Self { cursors: smallvec![cursor], tokens: Tokens::default() }
    }

    /// A walk that has not begun.
    pub fn new(route: &Route) -> Self {
        let cursors = match route.lanes.len() {
            lanes @ ..=2 => SmallVec::from_buf_and_len([Cursor::default(); 2], lanes),
            lanes => smallvec![Cursor::default(); lanes],
        };
        Self { cursors, tokens: Tokens::default() }
    }

    /// Takes every step that can be taken now.
    pub fn advance(&mut self, route: &Route, links: &Links, call: &Call<'_>) -> Result<Progress> {
        let Self { cursors, tokens } = self;
        let (mut moved, mut done) = (false, true);
        for (lane, (cursor, hops)) in cursors.iter_mut().zip(&route.lanes).enumerate() {
            let legs = route.chart.as_ref().map_or(&[][..], |chart| &chart.legs[lane]);
            moved |= cursor.advance(lane as u8, (hops, legs), tokens, links, call)?;
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
        self.standing().any(|(lane, _, step, _)| match route.lanes[lane].get(step) {
            Some(Hop::Move(step)) => step.sources.iter().any(|source| match *source {
                Operand::Link(at) => links.needs_neighbour(at),
                Operand::Local(_) => false,
            }),
            Some(Hop::Await(from)) => links.needs_neighbour(*from),
            _ => false,
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
        links: &Links,
        call: &Call<'_>,
    ) -> Result<bool> {
        let mut moved = false;
        while !self.done {
            let Some(hop) = hops.get(self.step) else {
                self.step = 0;
                self.round += 1;
                self.done = self.round >= call.extents.rounds();
                continue;
            };
            let tried = match hop {
                Hop::Post(to) => tokens.post(lane, *to),
                Hop::Join(from) => tokens.join(*from, lane),
                _ => hop.attempt(legs.get(self.step), self.round, links, call)?,
            };
            match tried {
                Tried::Done => {
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
    links.commit(at, 0, &call.request.tag)?;
    Ok(Tried::Done)
}

/// Takes a message without a payload.
fn await_signal(links: &Links, at: u32, call: &Call<'_>) -> Result<Tried> {
    match links.peek(at)? {
        None => Ok(Tried::Blocked(Blocker::Link(at, Wanted::Message))),
        Some(message) if message.digest == call.request.tag.digest && message.payload.is_empty() => {
            links.release(at)?;
            Ok(Tried::Done)
        }
        Some(_) => Err(mismatch(call.request.signature, at, links)),
    }
}

/// The peeked message is none of this call's.
#[cold]
fn mismatch(signature: &Signature, at: u32, links: &Links) -> Error {
    let text = signature.contrast(links.at(at).body());
    Error::new(Kind::Mismatch, text).with(links.port(at).peer as usize)
}

/// A step of a call, in one round.
struct Moving<'r, 'c> {
    step: &'r Move,
    round: usize,
    call: &'r Call<'c>,
}

/// As many as a step of eight ranks has.
type Few<T> = SmallVec<[T; 8]>;

impl<'c> Moving<'_, 'c> {
    // Apart from the loops over lanes and rounds, which would keep all of its values alive.
    #[inline(never)]
    fn attempt(&self, leg: &Leg, links: &Links) -> Result<Tried> {
        let Move { sources, to, .. } = self.step;
        // Later rounds send nothing where a block has run out; both sides know which.
        if self.round > 0 && leg.len == 0 {
            return Ok(Tried::Done);
        }
        let of_edge;
        let tag = match self.call.request.edges {
            false => &self.call.request.tag,
            true => {
                of_edge = self.signature().tag();
                &of_edge
            }
        };
        if self.step.lends && leg.len >= WORTH_LENDING && links.at(to[0]).limits().lends {
            return self.lend(links, tag);
        }
        let none = View::empty();
        if sources.len() <= 2 && to.len() <= 1 {
            return self.shift(&mut [none; 2], &mut [none; 2], leg, tag, links);
        }
        let mut views: Few<View<'_>> = smallvec![none; sources.len() + to.len() + 1];
        let (from, into) = views.split_at_mut(sources.len());
        self.shift(from, into, leg, tag, links)
    }

    /// Moves the step's bytes, if all of them can be moved; `from` and `into` have room for its views.
    #[inline(always)]
    fn shift<'l>(
        &self,
        from: &mut [View<'l>],
        into: &mut [View<'l>],
        leg: &Leg,
        tag: &Tag,
        links: &'l Links,
    ) -> Result<Tried>
    where
        'c: 'l,
    {
        let Move { sources, to, into: stored, .. } = self.step;
        let len = leg.len;
        // Messages whole, vectors by their first block.
        let mut pieces = leg.pieces.iter();
        let mut piece = |span: Span| {
            let piece = pieces.next().expect("a leg has a piece for each of its step's spans");
            self.memory(span).part(piece.clone())
        };
        for (source, view) in sources.iter().zip(&mut *from) {
            *view = match *source {
                Operand::Local(span) => piece(span),
                Operand::Link(at) => match links.peek(at)? {
                    Some(message) if message.digest == tag.digest && message.payload.len() == len => {
                        message.payload
                    }
                    Some(_) => return Err(mismatch(&self.signature(), at, links)),
                    None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Message))),
                },
            };
        }
        let mut places = into.iter_mut();
        let mut place =
            |view: View<'l>| *places.next().expect("there is room for each of a step's places") = view;
        if let Some(span) = *stored {
            place(piece(span));
        }
        for &at in to {
            let room = if self.step.answers { links.answer(at, len) } else { links.reserve(at, len) };
            match room? {
                Some(slot) => place(slot),
                None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Credit))),
            }
        }
        let (from, into) = (&from[..sources.len()], &into[..usize::from(stored.is_some()) + to.len()]);
        match self.step.span.count {
            1 => self.combine(into, from),
            _ => self.combine_blocks(into, from),
        }
        for &at in to {
            links.commit(at, len, tag)?;
        }
        for source in sources {
            if let Operand::Link(at) = *source {
                links.release(at)?;
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

    /// What a span lies in.
    #[inline(always)]
    fn memory(&self, span: Span) -> View<'c> {
        match span.memory {
            Memory::Input => self.call.request.input,
            Memory::Output if self.call.streams => self.call.request.output.streamed(),
            Memory::Output => self.call.request.output,
            Memory::Scratch(_) => self.call.scratch,
            Memory::Board(_) => self.call.board,
        }
    }

    /// The `index`-th block of a span.
    fn view(&self, span: Span, index: u32) -> View<'c> {
        self.memory(span).part(self.piece(span, index))
    }

    #[inline(never)]
    fn lend(&self, links: &Links, tag: &Tag) -> Result<Tried> {
        let Move { span, to, .. } = self.step;
        let pieces: Few<View<'_>> = (0..span.count).map(|index| self.view(*span, index)).collect();
        Ok(match links.lend(to[0], &pieces, tag)? {
            true => Tried::Done,
            false => Tried::Blocked(Blocker::Link(to[0], Wanted::Credit)),
        })
    }

    /// Combines block by block: a message holds its span's blocks one after the other.
    #[inline(never)]
    fn combine_blocks<'v>(&self, into: &[View<'v>], from: &[View<'v>])
    where
        'c: 'v,
    {
        let Move { sources, into: stored, span, .. } = self.step;
        let mut start = 0;
        for index in 0..span.count {
            let packed = start..start + self.piece(*span, index).len();
            start = packed.end;
            let block = |place: Option<Span>, whole: &View<'v>| -> View<'v> {
                match place {
                    Some(span) => self.view(span, index),
                    None => whole.part(packed.clone()),
                }
            };
            let places = stored.iter().map(|span| Some(*span)).chain(iter::repeat(None));
            let into: Few<View<'_>> = places.zip(into).map(|(place, whole)| block(place, whole)).collect();
            let places = sources.iter().map(|source| source.span());
            let from: Few<View<'_>> = places.zip(from).map(|(place, whole)| block(place, whole)).collect();
            self.combine(&into, &from);
        }
    }

    fn combine(&self, into: &[View<'_>], from: &[View<'_>]) {
        let finish = self.step.finish;
        match (from, self.call.request.reducer) {
            ([first, ..], _) if first.is_empty() => {}
            ([source], reducer) if reducer.is_none() || !finish => match into {
                // What lies in its place already is not stored anew.
                [stored, to @ ..] if stored.same_place(*source) && !to.is_empty() => {
                    kernel::copy(to, *source)
                }
                _ => kernel::copy(into, *source),
            },
            (_, Some(reducer)) => reducer.fold(into, from, finish),
            (_, None) => unreachable!("the prover refuses plans that combine where the collective does not"),
        }
    }
}
