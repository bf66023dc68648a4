//! One call's way through its route: cursors that advance as messages and credit come.
//!
//! ```text
//! lane 0   round 0: ■ ■ ■ ■   round 1: ■ ■ ▷ □   round 2: □ □ □ □
//! lane 1   round 0: ■ ■ ▷ □   …
//! ```
//! ■ done, ▷ the cursor, □ to come. A step happens whole or not at all, so a cursor is all the state
//! there is. Lanes advance in turn, on the calling thread.

use std::ops::Range;

use smallvec::SmallVec;

use super::Request;
use super::extent::Extents;
use super::link::{Links, Wanted};
use super::route::{Hop, Move, Operand, Route};
use super::signature::Signature;
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Reducer};
use crate::memory::View;
use crate::plan::{Memory, Span};
use crate::transport::Tag;

/// Below this many bytes a copy is cheaper than lending and waiting for the loan's end.
const WORTH_LENDING: usize = 16 << 10;

/// What one call works on.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What the caller wants.
    pub request: Request<'a>,
    /// Its signature, as it travels.
    pub tag: Tag,
    /// Where the blocks lie.
    pub extents: Extents<'a>,
    /// The engine's own memory.
    pub scratch: View<'a>,
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
    /// Tokens posted and not yet joined, by (from, to) lane.
    tokens: SmallVec<[((u8, u8), usize); 2]>,
}

/// The outcome of trying one step.
enum Tried {
    Done,
    Blocked(Blocker),
}

impl Walk {
    /// A walk that has not begun.
    pub fn new(route: &Route) -> Self {
        Self { cursors: route.lanes.iter().map(|_| Cursor::default()).collect(), tokens: SmallVec::new() }
    }

    /// Takes every step that can be taken now.
    pub fn advance(&mut self, route: &Route, links: &Links, call: &Call<'_>) -> Result<Progress> {
        let (mut moved, mut done) = (false, true);
        for lane in 0..self.cursors.len() {
            moved |= self.advance_lane(lane, route, links, call)?;
            done &= self.cursors[lane].done;
        }
        if moved && !done {
            return Ok(Progress::Moved);
        }
        // Asked while blocked, too: what waits in this process must go out, or nobody would answer.
        let settled = links.settled(&route.links)?;
        Ok(if done && settled { Progress::Done } else { Progress::Blocked })
    }

    /// Where each unfinished lane stands: lane, round, step and what it waits for.
    pub fn standing(&self) -> impl Iterator<Item = (usize, usize, usize, Option<Blocker>)> + '_ {
        let open = self.cursors.iter().enumerate().filter(|(_, cursor)| !cursor.done);
        open.map(|(lane, cursor)| (lane, cursor.round, cursor.step, cursor.blocker))
    }

    fn advance_lane(&mut self, lane: usize, route: &Route, links: &Links, call: &Call<'_>) -> Result<bool> {
        let hops = &route.lanes[lane];
        let mut moved = false;
        let mut cursor = self.cursors[lane];
        while !cursor.done {
            let Some(hop) = hops.get(cursor.step) else {
                cursor.step = 0;
                cursor.round += 1;
                cursor.done = cursor.round >= call.extents.rounds();
                continue;
            };
            match self.attempt(lane as u8, hop, cursor.round, links, call)? {
                Tried::Done => {
                    cursor.step += 1;
                    moved = true;
                }
                Tried::Blocked(blocker) => {
                    cursor.blocker = Some(blocker);
                    break;
                }
            }
        }
        self.cursors[lane] = cursor;
        Ok(moved)
    }

    fn attempt(
        &mut self,
        lane: u8,
        hop: &Hop,
        round: usize,
        links: &Links,
        call: &Call<'_>,
    ) -> Result<Tried> {
        match hop {
            Hop::Move(step) => Moving { step, round, call }.attempt(links),
            Hop::Post(to) => {
                *self.tokens_of((lane, *to)) += 1;
                Ok(Tried::Done)
            }
            Hop::Join(from) => {
                let tokens = self.tokens_of((*from, lane));
                if *tokens == 0 {
                    return Ok(Tried::Blocked(Blocker::Lane(*from)));
                }
                *tokens -= 1;
                Ok(Tried::Done)
            }
        }
    }

    fn tokens_of(&mut self, pair: (u8, u8)) -> &mut usize {
        let at = self.tokens.iter().position(|(known, _)| *known == pair).unwrap_or_else(|| {
            self.tokens.push((pair, 0));
            self.tokens.len() - 1
        });
        &mut self.tokens[at].1
    }
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
    fn attempt(&self, links: &Links) -> Result<Tried> {
        let Move { sources, to, .. } = self.step;
        let len = self.len();
        // Later rounds send nothing where a block has run out; both sides know which.
        if self.round > 0 && len == 0 {
            return Ok(Tried::Done);
        }
        let of_edge = self.call.request.edges.then(|| self.signature().tag());
        let tag = of_edge.as_ref().unwrap_or(&self.call.tag);
        if self.step.lends && len >= WORTH_LENDING && links.at(to[0]).limits().lends {
            return self.lend(links, tag);
        }
        let mut incoming: Few<View<'_>> = SmallVec::new();
        for at in received(sources) {
            match links.peek(at)? {
                Some(message) if message.digest == tag.digest && message.payload.len() == len => {
                    incoming.push(message.payload);
                }
                Some(_) => return Err(self.mismatch(at, links)),
                None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Message))),
            }
        }
        let mut outgoing: Few<View<'_>> = SmallVec::new();
        for &at in to {
            match links.reserve(at, len)? {
                Some(slot) => outgoing.push(slot),
                None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Credit))),
            }
        }
        self.fold(&incoming, &outgoing);
        for &at in to {
            links.commit(at, len, tag)?;
        }
        for at in received(sources) {
            links.release(at)?;
        }
        Ok(Tried::Done)
    }

    /// Where the `index`-th block of a span lies, in bytes of its memory.
    #[inline]
    fn piece(&self, span: Span, index: u32) -> Range<usize> {
        let extents = &self.call.extents;
        let block = span.block(index, extents.blocks() as u32);
        extents.piece(span.memory, block as usize, self.round)
    }

    /// The bytes of a message of this step.
    #[inline]
    fn len(&self) -> usize {
        let span = self.step.span;
        (0..span.count).map(|index| self.piece(span, index).len()).sum()
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
    #[inline]
    fn view(&self, span: Span, index: u32) -> View<'c> {
        let place = match span.memory {
            Memory::Input => self.call.request.input,
            Memory::Output => self.call.request.output,
            Memory::Scratch(_) => self.call.scratch,
        };
        place.part(self.piece(span, index))
    }

    fn lend(&self, links: &Links, tag: &Tag) -> Result<Tried> {
        let Move { span, to, .. } = self.step;
        let pieces: Few<View<'_>> = (0..span.count).map(|index| self.view(*span, index)).collect();
        Ok(match links.lend(to[0], &pieces, tag)? {
            true => Tried::Done,
            false => Tried::Blocked(Blocker::Link(to[0], Wanted::Credit)),
        })
    }

    /// The peeked message is none of this call's.
    #[cold]
    fn mismatch(&self, at: u32, links: &Links) -> Error {
        let text = self.signature().contrast(links.at(at).body());
        Error::new(Kind::Mismatch, text).with(links.port(at).peer as usize)
    }

    /// Combines block by block: a message holds its span's blocks one after the other.
    fn fold(&self, incoming: &[View<'_>], outgoing: &[View<'_>]) {
        let Move { sources, finish, into, span, .. } = self.step;
        let mut end = 0;
        for index in 0..span.count {
            let len = self.piece(*span, index).len();
            let packed = end..end + len;
            end += len;
            if len == 0 {
                continue;
            }
            let mut incoming = incoming.iter();
            let mut from: Few<View<'_>> = SmallVec::new();
            for source in sources {
                from.push(match source {
                    Operand::Local(span) => self.view(*span, index),
                    Operand::Link(_) => {
                        incoming.next().expect("one message per link among the sources").part(packed.clone())
                    }
                });
            }
            let mut to: Few<View<'_>> = SmallVec::new();
            if let Some(span) = into {
                to.push(self.view(*span, index));
            }
            for slot in outgoing {
                to.push(slot.part(packed.clone()));
            }
            combine(&to, &from, *finish, self.call.request.reducer);
        }
    }
}

/// The links among a step's sources.
fn received(sources: &[Operand]) -> impl Iterator<Item = u32> + '_ {
    sources.iter().filter_map(|source| match *source {
        Operand::Link(at) => Some(at),
        Operand::Local(_) => None,
    })
}

fn combine(destinations: &[View<'_>], sources: &[View<'_>], finish: bool, reducer: Option<&Reducer>) {
    match (sources, reducer) {
        ([source], None) => kernel::copy(destinations, *source),
        ([source], Some(_)) if !finish => kernel::copy(destinations, *source),
        (_, Some(reducer)) => reducer.fold(destinations, sources, finish),
        (_, None) => unreachable!("the prover refuses plans that combine where the collective does not"),
    }
}
