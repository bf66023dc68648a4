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

use super::extent::Extents;
use super::link::{Links, Wanted};
use super::route::{Hop, Operand, Route};
use super::signature::Signature;
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Reducer};
use crate::memory::View;
use crate::plan::{Memory, Span};
use crate::transport::{Message, Tag};

/// Below this many bytes a copy is cheaper than lending and waiting for the loan's end.
const WORTH_LENDING: usize = 16 << 10;

/// What one call works on.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// What all ranks must agree on.
    pub signature: Signature,
    /// The same, as it travels.
    pub tag: Tag,
    /// Where the blocks lie.
    pub extents: Extents<'a>,
    /// The caller's input.
    pub input: View<'a>,
    /// The caller's output.
    pub output: View<'a>,
    /// The engine's own memory.
    pub scratch: View<'a>,
    /// How to combine, where the collective does.
    pub reducer: Option<&'a Reducer>,
    /// Whether each rank knows only its own edges: then lengths are compared per edge.
    pub edges: bool,
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
            Hop::Move { sources, finish, into, to, span, lends } => {
                let step = Moving { sources, finish: *finish, into: *into, to, span: *span, round };
                step.attempt(*lends, links, call)
            }
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

/// A [`Hop::Move`] in one round.
struct Moving<'r> {
    sources: &'r [Operand],
    finish: bool,
    into: Option<Span>,
    to: &'r [u32],
    span: Span,
    round: usize,
}

type Few<T> = SmallVec<[T; 4]>;

impl Moving<'_> {
    fn attempt(&self, lends: bool, links: &Links, call: &Call<'_>) -> Result<Tried> {
        let len = self.len(call);
        // Later rounds send nothing where a block has run out; both sides know which.
        if self.round > 0 && len == 0 {
            return Ok(Tried::Done);
        }
        let signature = self.signature(call);
        let tag = if call.edges { signature.tag() } else { call.tag };
        if lends && len >= WORTH_LENDING && links.at(self.to[0]).limits().lends {
            return self.lend(links, call, &tag);
        }
        let mut incoming: Few<Message<'_>> = SmallVec::new();
        for source in self.sources {
            if let Operand::Link(at) = *source {
                match links.peek(at)? {
                    Some(message) => incoming.push(message),
                    None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Message))),
                }
            }
        }
        let mut outgoing: Few<View<'_>> = SmallVec::new();
        for &at in self.to {
            match links.reserve(at, len)? {
                Some(slot) => outgoing.push(slot),
                None => return Ok(Tried::Blocked(Blocker::Link(at, Wanted::Credit))),
            }
        }
        self.compare(&incoming, len, &tag, &signature, links)?;
        self.fold(&incoming, &outgoing, call);
        for &at in self.to {
            links.commit(at, len, &tag)?;
        }
        for source in self.sources {
            if let Operand::Link(at) = *source {
                links.release(at)?;
            }
        }
        Ok(Tried::Done)
    }

    /// Where the `index`-th block of a span lies, in bytes of its memory.
    #[inline]
    fn piece(&self, span: Span, index: u32, call: &Call<'_>) -> Range<usize> {
        let block = span.block(index, call.extents.blocks() as u32);
        call.extents.piece(span.memory, block as usize, self.round)
    }

    fn len(&self, call: &Call<'_>) -> usize {
        (0..self.span.count).map(|index| self.piece(self.span, index, call).len()).sum()
    }

    /// The call's signature; where ranks know only their own edges, with the edge's count in it.
    fn signature(&self, call: &Call<'_>) -> Signature {
        if !call.edges {
            return call.signature;
        }
        let blocks = self.span.blocks(call.extents.blocks() as u32);
        let counts = blocks.map(|block| call.extents.count(self.span.memory, block as usize));
        Signature { count: counts.sum::<usize>() as u64, ..call.signature }
    }

    /// The `index`-th block of a span.
    #[inline]
    fn view<'c>(&self, span: Span, index: u32, call: &Call<'c>) -> View<'c> {
        let place = match span.memory {
            Memory::Input => call.input,
            Memory::Output => call.output,
            Memory::Scratch(_) => call.scratch,
        };
        place.part(self.piece(span, index, call))
    }

    fn lend(&self, links: &Links, call: &Call<'_>, tag: &Tag) -> Result<Tried> {
        let pieces: Few<View<'_>> =
            (0..self.span.count).map(|index| self.view(self.span, index, call)).collect();
        Ok(match links.lend(self.to[0], &pieces, tag)? {
            true => Tried::Done,
            false => Tried::Blocked(Blocker::Link(self.to[0], Wanted::Credit)),
        })
    }

    fn compare(
        &self,
        incoming: &[Message<'_>],
        len: usize,
        tag: &Tag,
        signature: &Signature,
        links: &Links,
    ) -> Result<()> {
        let peers = self.sources.iter().filter_map(|source| match *source {
            Operand::Link(at) => Some(at),
            Operand::Local(_) => None,
        });
        for (message, at) in incoming.iter().zip(peers) {
            if message.digest != tag.digest || message.payload.len() != len {
                let text = signature.contrast(links.at(at).body());
                return Err(Error::new(Kind::Mismatch, text).with(links.port(at).peer as usize));
            }
        }
        Ok(())
    }

    /// Combines block by block: a message holds its span's blocks one after the other.
    fn fold(&self, incoming: &[Message<'_>], outgoing: &[View<'_>], call: &Call<'_>) {
        let mut end = 0;
        for index in 0..self.span.count {
            let len = self.piece(self.span, index, call).len();
            let packed = end..end + len;
            end += len;
            if len == 0 {
                continue;
            }
            let mut messages = incoming.iter();
            let mut sources: Few<View<'_>> = SmallVec::new();
            for source in self.sources {
                sources.push(match source {
                    Operand::Local(span) => self.view(*span, index, call),
                    Operand::Link(_) => {
                        let message = messages.next().expect("one message per link among the sources");
                        message.payload.part(packed.clone())
                    }
                });
            }
            let mut destinations: Few<View<'_>> = SmallVec::new();
            if let Some(span) = self.into {
                destinations.push(self.view(span, index, call));
            }
            for slot in outgoing {
                destinations.push(slot.part(packed.clone()));
            }
            combine(&destinations, &sources, self.finish, call.reducer);
        }
    }
}

fn combine(destinations: &[View<'_>], sources: &[View<'_>], finish: bool, reducer: Option<&Reducer>) {
    match (sources, reducer) {
        ([source], None) => kernel::copy(destinations, *source),
        ([source], Some(_)) if !finish => kernel::copy(destinations, *source),
        (_, Some(reducer)) => reducer.fold(destinations, sources, finish),
        (_, None) => unreachable!("the prover refuses plans that combine where the collective does not"),
    }
}
