//! A second opinion on the prover: walks plans in random order, at random credit, with lent sources read
//! as late as can be, and keeps of each value the list of what went into it.

use std::collections::{HashMap, VecDeque};

use kolo::plan::{Collective, CollectiveKind, Memory, Plan, Source, Span, Step};

const ROUNDS: usize = 3;

/// What went into a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    block: u32,
    round: usize,
    /// The ranks, in the order in which they were combined.
    ranks: Vec<usize>,
    finished: u32,
}

enum Message {
    Copied(Vec<Value>),
    Lent(Place),
    Signal,
}

/// A span of some rank in some round.
#[derive(Clone, Copy)]
struct Place {
    rank: usize,
    span: Span,
    round: usize,
}

struct Walk<'a> {
    plans: &'a [Plan],
    in_place: bool,
    lends: bool,
    cells: HashMap<(usize, Memory, u32, usize), Value>,
    links: HashMap<(usize, usize, u8), VecDeque<Message>>,
    tokens: HashMap<(usize, usize, usize), usize>,
    credit: usize,
}

impl Walk<'_> {
    fn key(&self, place: Place, block: u32) -> (usize, Memory, u32, usize) {
        match place.span.memory {
            Memory::Input if self.in_place => (place.rank, Memory::Output, block, place.round),
            Memory::Board(_) => (usize::MAX, place.span.memory, block, 0),
            Memory::Scratch(_) => (place.rank, place.span.memory, block, 0),
            memory => (place.rank, memory, block, place.round),
        }
    }

    fn read(&self, place: Place) -> Result<Vec<Value>, String> {
        let blocks = place.span.blocks(self.plans[0].blocks);
        let cell =
            |block| self.cells.get(&self.key(place, block)).cloned().ok_or("nothing there".to_string());
        blocks.map(cell).collect()
    }

    /// Whether every message has come and there is room for those that it sends.
    fn can_move(&self, rank: usize, channel: u8, step: &Step) -> bool {
        let waiting = |from: usize, to: usize| self.links.get(&(from, to, channel)).map_or(0, VecDeque::len);
        step.senders().all(|peer| waiting(peer as usize, rank) > 0)
            && step.receivers().iter().all(|&peer| waiting(rank, peer as usize) < self.credit)
    }

    fn signal(&mut self, rank: usize, channel: u8, step: &Step) -> Result<(), String> {
        for &peer in step.receivers() {
            self.links.entry((rank, peer as usize, channel)).or_default().push_back(Message::Signal);
        }
        for peer in step.senders() {
            let link = self.links.get_mut(&(peer as usize, rank, channel));
            let Some(Message::Signal) = link.and_then(VecDeque::pop_front) else {
                return Err("no signal".into());
            };
        }
        Ok(())
    }

    /// Whether the step was done; an error if it did something wrong.
    fn step(&mut self, rank: usize, lane: usize, round: usize, step: &Step) -> Result<bool, String> {
        let channel = self.plans[rank].lanes[lane].channel;
        let (sources, finish, into, to) = match step {
            Step::Post(other) => {
                *self.tokens.entry((rank, lane, usize::from(*other))).or_default() += 1;
                return Ok(true);
            }
            Step::Join(other) => {
                let tokens = self.tokens.entry((rank, usize::from(*other), lane)).or_default();
                let there = *tokens > 0;
                *tokens -= usize::from(there);
                return Ok(there);
            }
            Step::Signal(_) | Step::Await(_) => {
                let there = self.can_move(rank, channel, step);
                return if there { self.signal(rank, channel, step).map(|()| true) } else { Ok(false) };
            }
            Step::Move { sources, finish, into, to } => (sources, finish, into, to),
        };
        if !self.can_move(rank, channel, step) {
            return Ok(false);
        }
        let plain = !finish && into.is_none();
        if let ([Source::Local(span)], true, true) = (sources.as_slice(), plain, self.lends) {
            for &peer in to {
                let place = Place { rank, span: *span, round };
                self.links.entry((rank, peer as usize, channel)).or_default().push_back(Message::Lent(place));
            }
            return Ok(true);
        }
        let mut held: Vec<Value> = Vec::new();
        for source in sources {
            let values = match *source {
                Source::Local(span) => self.read(Place { rank, span, round })?,
                Source::From(peer) => {
                    let link = self.links.get_mut(&(peer as usize, rank, channel));
                    match link.and_then(VecDeque::pop_front).ok_or("no message")? {
                        Message::Copied(values) => values,
                        Message::Lent(place) => self.read(place)?,
                        Message::Signal => return Err("a signal instead of a message".into()),
                    }
                }
            };
            if held.is_empty() {
                held = values;
                continue;
            }
            for (left, right) in held.iter_mut().zip(values) {
                if (left.block, left.round) != (right.block, right.round) {
                    return Err(format!("{left:?} with {right:?}"));
                }
                left.ranks.extend(right.ranks);
                left.finished += 100 * right.finished;
            }
        }
        held.iter_mut().for_each(|value| value.finished += u32::from(*finish));
        for &peer in to {
            let message = Message::Copied(held.clone());
            self.links.entry((rank, peer as usize, channel)).or_default().push_back(message);
        }
        if let Some(span) = *into {
            let place = Place { rank, span, round };
            for (block, value) in span.blocks(self.plans[0].blocks).zip(held) {
                self.cells.insert(self.key(place, block), value);
            }
        }
        Ok(true)
    }
}

/// What is wrong with plans in some random order of events; nothing if nothing is.
pub(crate) fn walk(collective: Collective, plans: &[Plan], seed: u64) -> Result<(), String> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % n
    };
    let in_place = seed.is_multiple_of(2) && collective.kind != CollectiveKind::AllToAll;
    let (cells, links, tokens) = (HashMap::new(), HashMap::new(), HashMap::new());
    let lends = plans[0].lends && below(4) > 0;
    let mut walk = Walk { plans, in_place, lends, cells, links, tokens, credit: 2 + below(3) };
    for rank in 0..plans.len() {
        for (block, round) in
            (0..plans[0].blocks).flat_map(|block| (0..ROUNDS).map(move |round| (block, round)))
        {
            if collective.has_input(rank, block as usize) {
                let place = Place { rank, span: kolo::plan::input(block as usize), round };
                let value = Value { block, round, ranks: vec![rank], finished: 0 };
                walk.cells.insert(walk.key(place, block), value);
            }
        }
    }
    let lanes_of = |rank: usize| (0..plans[rank].lanes.len()).map(move |lane| (rank, lane, 0, 0));
    let mut lanes: Vec<(usize, usize, usize, usize)> = (0..plans.len()).flat_map(lanes_of).collect();
    lanes.retain(|&(rank, lane, ..)| !plans[rank].lanes[lane].steps.is_empty());
    while !lanes.is_empty() {
        let first = below(lanes.len());
        let mut moved = None;
        for offset in 0..lanes.len() {
            let at = (first + offset) % lanes.len();
            let (rank, lane, round, step) = lanes[at];
            if walk.step(rank, lane, round, &plans[rank].lanes[lane].steps[step])? {
                moved = Some(at);
                break;
            }
        }
        let at = moved.ok_or("all wait")?;
        let (rank, lane, round, step) = &mut lanes[at];
        *step += 1;
        if *step == plans[*rank].lanes[*lane].steps.len() {
            (*step, *round) = (0, *round + 1);
        }
        if *round == ROUNDS {
            lanes.swap_remove(at);
        }
    }
    check(collective, &walk)
}

/// Every output holds each contribution once and is finished once.
fn check(collective: Collective, walk: &Walk<'_>) -> Result<(), String> {
    let ranks = walk.plans.len();
    if walk.links.values().any(|link| !link.is_empty()) {
        return Err("messages are left".into());
    }
    if collective.kind == CollectiveKind::Barrier {
        return Ok(());
    }
    for rank in 0..ranks {
        for (block, round) in (0..walk.plans[0].blocks).flat_map(|b| (0..ROUNDS).map(move |round| (b, round)))
        {
            if !collective.has_output(rank, block as usize) {
                continue;
            }
            let place = Place { rank, span: kolo::plan::output(block as usize), round };
            let mut found = walk.read(place)?.remove(0);
            found.ranks.sort_unstable();
            let (of, wanted) = match collective.kind {
                CollectiveKind::AllGather | CollectiveKind::Gather => (block, vec![block as usize]),
                CollectiveKind::Broadcast | CollectiveKind::Scatter => {
                    (block, vec![collective.root as usize])
                }
                CollectiveKind::AllToAll => (rank as u32, vec![block as usize]),
                _ => (block, (0..ranks).collect()),
            };
            let finished = u32::from(collective.kind.reduces());
            let wanted = Value { block: of, round, ranks: wanted, finished };
            if found != wanted {
                return Err(format!("rank {rank}: {found:?} instead of {wanted:?}"));
            }
        }
    }
    Ok(())
}
