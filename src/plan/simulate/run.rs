//! One simulated run of all ranks' plans under one mode.

use std::collections::{BTreeMap, VecDeque};

use super::memory::{Lengths, Memories};
use super::order::{Conflict, Order, Stamp};
use super::slots::Slots;
use super::value::{Value, diagnose, expected};
use crate::plan::collective::{Collective, CollectiveKind};
use crate::plan::give::given;
use crate::plan::net::{LaneState, Net};
use crate::plan::refusal::Refusal;
use crate::plan::step::{Plan, Source, Span, Step};

/// The circumstances of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// How many messages may wait on a link.
    pub(super) credit: u8,
    pub(super) in_place: bool,
    pub(super) rounds: u32,
    pub(super) lengths: Lengths,
    pub(super) ordered: Ordered,
}

/// Whether a run follows what happens before what: conflicts of lanes, lent sources, barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ordered {
    /// It does.
    Yes,
    /// There is nothing that could conflict.
    Idle,
    /// It would take too long.
    No,
}

/// What a run showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Whether all results were left folds in rank order.
    pub(super) rank_order: bool,
    /// A hash of all results, with their order and brackets.
    pub(super) results: u64,
    /// The longest chain of messages in the first round.
    pub(super) hops: u32,
}

/// A token from one lane to another of the same rank: its hops and its stamp.
type Token = (u32, Option<Stamp>);

/// A run under way.
pub(super) struct Run<'a> {
    collective: Collective,
    plans: &'a [Plan],
    credit: u8,
    net: Net<Slots>,
    memories: Memories,
    tokens: BTreeMap<(u32, u32), VecDeque<Token>>,
    /// By rank, lane and step: whether it gives its source away. Nothing out of place.
    given: Vec<Vec<Vec<bool>>>,
    order: Option<Order>,
    /// Lanes that may be able to go on, and whether each lane is among them.
    ready: VecDeque<u32>,
    queued: Vec<bool>,
    /// The longest chain of messages that each lane has seen, and that of the first round.
    hops: Vec<u32>,
    longest: u32,
    /// The values of the present step.
    held: Vec<Value>,
}

/// One attempt at a step.
enum Attempt {
    Done,
    Waits,
}

impl<'a> Run<'a> {
    pub(super) fn new(collective: Collective, plans: &'a [Plan], net: Net<Slots>, mode: Mode) -> Self {
        let memories = Memories::new(collective, plans, mode.in_place, mode.rounds, mode.lengths);
        let order = (mode.ordered == Ordered::Yes).then(|| {
            // A rank with one lane and nothing lent cannot conflict with anybody; ranks can, on the board.
            let conflicts = plans.iter().map(|plan| plan.lends || plan.lanes.len() > 1).chain([true]);
            let watched = memories.cells().zip(conflicts);
            Order::new(&net, watched.map(|(cells, conflicts)| if conflicts { cells } else { 0 }))
        });
        let lanes = net.lanes.len();
        Self {
            collective,
            plans,
            credit: mode.credit,
            memories,
            tokens: BTreeMap::new(),
            given: if mode.in_place { plans.iter().map(given).collect() } else { Vec::new() },
            order,
            ready: (0..lanes as u32).collect(),
            queued: vec![true; lanes],
            hops: vec![0; lanes],
            longest: 0,
            held: Vec::new(),
            net,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Outcome, Box<Refusal>> {
        while let Some(lane) = self.ready.pop_front() {
            self.queued[lane as usize] = false;
            self.advance(lane as usize)?;
        }
        self.nobody_waits()?;
        self.nothing_is_left()?;
        let (rank_order, results) = self.results()?;
        if self.collective.kind == CollectiveKind::Barrier {
            self.everybody_came()?;
        }
        Ok(Outcome { rank_order, results, hops: self.longest })
    }

    /// Runs a lane until it waits or is done.
    fn advance(&mut self, lane: usize) -> Result<(), Box<Refusal>> {
        let plans = self.plans;
        let LaneState { rank, index, .. } = self.net.lanes[lane];
        let steps = &plans[rank as usize].lanes[usize::from(index)].steps;
        loop {
            let state = &mut self.net.lanes[lane];
            let number = state.step as usize;
            if number == steps.len() {
                if state.round == 0 {
                    self.longest = self.longest.max(self.hops[lane]);
                }
                state.round += 1;
                state.step = 0;
            }
            if state.round == self.memories.rounds || steps.is_empty() {
                return Ok(());
            }
            let number = state.step as usize;
            match self.attempt(lane, &steps[number]) {
                Ok(Attempt::Done) => self.net.lanes[lane].step += 1,
                Ok(Attempt::Waits) => return Ok(()),
                Err(problem) => {
                    return Err(Refusal::step(plans, rank as usize, index.into(), number, problem));
                }
            }
        }
    }

    fn attempt(&mut self, lane: usize, step: &'a Step) -> Result<Attempt, String> {
        match step {
            Step::Post(to) => self.post(lane, *to),
            Step::Join(from) => return Ok(self.join(lane, *from)),
            Step::Signal(_) | Step::Await(_) => return self.signal(lane, step),
            Step::Move { sources, finish, into, to } => {
                let Some(extent) = step.extent() else { return Err("it names no span".into()) };
                let LaneState { rank, round, .. } = self.net.lanes[lane];
                if round > 0 && self.memories.nothing(rank as usize, extent, round) {
                    return Ok(Attempt::Done);
                }
                if !self.can_move(lane, step) {
                    return Ok(Attempt::Waits);
                }
                self.gather(lane, sources, extent)?;
                if lends(step) {
                    self.lend(lane, sources, to)?;
                }
                if *finish {
                    self.held.iter_mut().filter(|v| **v != Value::EMPTY).for_each(|v| *v = v.finish());
                }
                if let Some(into) = into {
                    self.store(lane, *into, sources, *finish)?;
                }
                self.send(lane, Some(extent), to);
            }
        }
        Ok(Attempt::Done)
    }

    /// Sends a signal, or takes one.
    fn signal(&mut self, lane: usize, step: &'a Step) -> Result<Attempt, String> {
        if !self.can_move(lane, step) {
            return Ok(Attempt::Waits);
        }
        if let Some(order) = &mut self.order {
            order.step(lane);
            for peer in step.senders() {
                order.receive(lane, self.net.lanes[lane].receives.link(peer));
            }
        }
        for peer in step.senders() {
            let state = &mut self.net.lanes[lane];
            let link = &mut self.net.links[state.receives.link(peer)];
            let (producer, message) = (link.producer, link.state.pop());
            if let Some(came) = message.extent {
                return Err(format!("rank {peer} sends {came}, which is no signal"));
            }
            self.hops[lane] = self.hops[lane].max(message.hops);
            self.wake(producer);
        }
        self.send(lane, None, step.receivers());
        Ok(Attempt::Done)
    }

    fn post(&mut self, lane: usize, to: u8) {
        let other = self.net.sibling(lane, to) as u32;
        let stamp = self.order.as_mut().map(|order| {
            order.step(lane);
            order.stamp(lane)
        });
        self.tokens.entry((lane as u32, other)).or_default().push_back((self.hops[lane], stamp));
        self.wake(other);
    }

    fn join(&mut self, lane: usize, from: u8) -> Attempt {
        let other = self.net.sibling(lane, from) as u32;
        let token = self.tokens.get_mut(&(other, lane as u32)).and_then(VecDeque::pop_front);
        let Some((hops, stamp)) = token else { return Attempt::Waits };
        self.hops[lane] = self.hops[lane].max(hops);
        if let Some((order, stamp)) = self.order.as_mut().zip(stamp) {
            order.step(lane);
            order.learn(lane, &stamp);
        }
        Attempt::Done
    }

    /// Whether every source has a message and every target has credit.
    fn can_move(&mut self, lane: usize, step: &Step) -> bool {
        let Net { lanes, links, .. } = &mut self.net;
        let state = &mut lanes[lane];
        let come = step.senders().all(|peer| links[state.receives.link(peer)].state.waiting > 0);
        come && step.receivers().iter().all(|&peer| links[state.sends.link(peer)].state.waiting < self.credit)
    }

    /// Takes the messages and combines the sources, left to right, into `held`.
    fn gather(&mut self, lane: usize, sources: &[Source], extent: Span) -> Result<(), String> {
        self.held.clear();
        if let Some(order) = &mut self.order {
            order.step(lane);
            for source in sources {
                if let Source::From(peer) = *source {
                    order.receive(lane, self.net.lanes[lane].receives.link(peer));
                }
            }
        }
        for (index, source) in sources.iter().enumerate() {
            match *source {
                Source::From(peer) => self.take(lane, peer, extent, index == 0)?,
                Source::Local(span) => self.read(lane, span, index == 0)?,
            }
        }
        Ok(())
    }

    /// Lends what a step sends, where its plan says so. What it gives away is written by whom it is lent to, so
    /// that nothing is defined there any more.
    fn lend(&mut self, lane: usize, sources: &[Source], to: &[u32]) -> Result<(), String> {
        let LaneState { rank, index, step, round, .. } = self.net.lanes[lane];
        let (plan, rank) = (&self.plans[rank as usize], rank as usize);
        let (Some(&Source::Local(span)), true) = (sources.first(), plan.lends) else { return Ok(()) };
        let owner = self.memories.owner(rank, span.memory);
        let gives = self.given.get(rank).is_some_and(|lanes| lanes[usize::from(index)][step as usize]);
        for block in span.blocks(plan.blocks) {
            let Some(cell) = self.memories.cell(span.memory, block, round) else { continue };
            if gives && !self.memories.is_empty(rank, span.memory, block, round) {
                self.write(lane, owner, cell, Value::UNDEFINED)
                    .map_err(|why| format!("it gives block {block} of {span} away while {why}"))?;
            }
            if let Some(order) = &mut self.order {
                let state = &mut self.net.lanes[lane];
                to.iter().for_each(|&peer| order.lend(owner, cell, state.sends.link(peer)));
            }
        }
        Ok(())
    }

    /// Takes the message from `peer`.
    fn take(&mut self, lane: usize, peer: u32, extent: Span, first: bool) -> Result<(), String> {
        let state = &mut self.net.lanes[lane];
        let link = &mut self.net.links[state.receives.link(peer)];
        let producer = link.producer;
        let message = link.state.pop();
        let Some(came) = message.extent else {
            return Err(format!("rank {peer} sends a signal, which is not {extent}"));
        };
        let same = (came.first, came.count, came.run) == (extent.first, extent.count, extent.run);
        if !same && (self.collective.kind != CollectiveKind::AllToAll || came.count != extent.count) {
            return Err(format!("rank {peer} sends {came}, which is not {extent}"));
        }
        self.hops[lane] = self.hops[lane].max(message.hops);
        let values = if came.count == 1 { std::slice::from_ref(&message.value) } else { &message.values };
        for (index, value) in values.iter().enumerate() {
            hold(&mut self.held, first, index, *value)?;
        }
        self.wake(producer);
        Ok(())
    }

    fn read(&mut self, lane: usize, span: Span, first: bool) -> Result<(), String> {
        let LaneState { rank, round, .. } = self.net.lanes[lane];
        let rank = rank as usize;
        let owner = self.memories.owner(rank, span.memory);
        for (index, block) in span.blocks(self.plans[rank].blocks).enumerate() {
            let empty = self.memories.is_empty(rank, span.memory, block, round);
            if let Some(order) = self.order.as_mut().filter(|_| !empty)
                && let Some(cell) = self.memories.cell(span.memory, block, round)
                && let Err(other) = order.read(lane, owner, cell)
            {
                let other = self.called(lane, other);
                return Err(format!(
                    "it reads block {block} of {span}, which {other} writes at no certain time"
                ));
            }
            let Some(value) = self.memories.read(rank, span.memory, block, round) else {
                return Err(format!("it reads block {block} of {span} before that is written"));
            };
            hold(&mut self.held, first, index, value)?;
        }
        Ok(())
    }

    /// What `lane` calls another one: that lane, or that rank.
    fn called(&self, lane: usize, other: u32) -> String {
        let (mine, theirs) = (&self.net.lanes[lane], &self.net.lanes[other as usize]);
        match mine.rank == theirs.rank {
            true => format!("lane {}", theirs.index),
            false => format!("rank {}", theirs.rank),
        }
    }

    fn store(&mut self, lane: usize, into: Span, sources: &[Source], finish: bool) -> Result<(), String> {
        let LaneState { rank, round, .. } = self.net.lanes[lane];
        let rank = rank as usize;
        if !finish && matches!(sources, [Source::Local(span)] if self.memories.same_place(*span, into)) {
            return Ok(());
        }
        let owner = self.memories.owner(rank, into.memory);
        for (index, block) in into.blocks(self.plans[rank].blocks).enumerate() {
            let value = self.held[index];
            if self.memories.is_empty(rank, into.memory, block, round) != (value == Value::EMPTY) {
                return Err(format!("what it stores as block {block} of {into} is of another length"));
            }
            if value == Value::EMPTY {
                continue;
            }
            let Some(cell) = self.memories.cell(into.memory, block, round) else { continue };
            self.write(lane, owner, cell, value)
                .map_err(|why| format!("it overwrites block {block} of {into} while {why}"))?;
        }
        Ok(())
    }

    /// Writes a cell, unless somebody may be using it.
    fn write(&mut self, lane: usize, owner: usize, cell: usize, value: Value) -> Result<(), String> {
        if let Some(order) = &mut self.order {
            order.write(lane, owner, cell, &self.net).map_err(|conflict| match conflict {
                Conflict::Lent(peer) => format!("rank {peer} may still be reading it"),
                Conflict::Lane(other) => format!("{} may be using it", self.called(lane, other)),
            })?;
        }
        self.memories.write(owner, cell, self.net.lanes[lane].round, value);
        Ok(())
    }

    /// Sends what is held, or a signal where there is no extent.
    fn send(&mut self, lane: usize, extent: Option<Span>, to: &[u32]) {
        for &peer in to {
            let state = &mut self.net.lanes[lane];
            let (number, hops) = (state.sends.link(peer), self.hops[lane] + 1);
            let link = &mut self.net.links[number];
            let message = link.state.push();
            (message.extent, message.hops) = (extent, hops);
            match extent {
                None => {}
                Some(Span { count: 1, .. }) => message.value = self.held[0],
                Some(_) => message.values.clone_from(&self.held),
            }
            if let Some(order) = &mut self.order {
                order.send(lane, number);
            }
            let consumer = link.consumer;
            self.wake(consumer);
        }
    }

    fn wake(&mut self, lane: u32) {
        if !std::mem::replace(&mut self.queued[lane as usize], true) {
            self.ready.push_back(lane);
        }
    }

    /// All lanes are done, or some wait for each other or for what never comes.
    fn nobody_waits(&mut self) -> Result<(), Box<Refusal>> {
        let Some(mut lane) = (0..self.net.lanes.len()).find(|&lane| !self.is_done(lane)) else {
            return Ok(());
        };
        // Follow the waits: to a lane that is done, or around a circle of waits.
        let mut seen = vec![false; self.net.lanes.len()];
        let (mut why, mut other) = self.waits_for(lane);
        while !self.is_done(other) && !std::mem::replace(&mut seen[lane], true) {
            lane = other;
            (why, other) = self.waits_for(lane);
        }
        let LaneState { rank, index, step, .. } = self.net.lanes[lane];
        let theirs = &self.net.lanes[other];
        let problem = if self.is_done(other) {
            format!("it waits forever for {why}, which has ended")
        } else {
            let step = &self.plans[theirs.rank as usize].lanes[usize::from(theirs.index)].steps
                [theirs.step as usize];
            format!("it waits forever for {why}, which stands at step {} ({step})", theirs.step)
        };
        let refusal = Refusal::step(self.plans, rank as usize, index.into(), step as usize, problem);
        Err(Box::new(Refusal { stuck: true, ..*refusal }))
    }

    fn is_done(&self, lane: usize) -> bool {
        let state = &self.net.lanes[lane];
        let steps = &self.plans[state.rank as usize].lanes[usize::from(state.index)].steps;
        state.round == self.memories.rounds || steps.is_empty()
    }

    /// What a lane that cannot go on waits for, and of which lane.
    fn waits_for(&mut self, lane: usize) -> (String, usize) {
        let Net { lanes, links, .. } = &mut self.net;
        let state = &mut lanes[lane];
        let steps = &self.plans[state.rank as usize].lanes[usize::from(state.index)].steps;
        match &steps[state.step as usize] {
            step @ (Step::Move { .. } | Step::Signal(_) | Step::Await(_)) => {
                for peer in step.senders() {
                    let link = &links[state.receives.link(peer)];
                    if link.state.waiting == 0 {
                        return (format!("a message from rank {peer}"), link.producer as usize);
                    }
                }
                for &peer in step.receivers() {
                    let link = &links[state.sends.link(peer)];
                    if link.state.waiting == self.credit {
                        return (format!("credit from rank {peer}"), link.consumer as usize);
                    }
                }
                unreachable!("it could have moved")
            }
            Step::Post(other) | Step::Join(other) => {
                (format!("a token from lane {other}"), self.net.sibling(lane, *other))
            }
        }
    }

    fn nothing_is_left(&self) -> Result<(), Box<Refusal>> {
        if let Some(link) = self.net.links.iter().find(|link| link.state.waiting > 0) {
            let peer = self.net.lanes[link.consumer as usize].rank;
            let problem = format!("its message to rank {peer} is never received");
            return Err(self.net.blame(
                self.plans,
                link.producer as usize,
                |step| step.receivers().contains(&peer),
                problem,
            ));
        }
        if let Some(((from, to), _)) = self.tokens.iter().find(|(_, waiting)| !waiting.is_empty()) {
            let (from, to) = (&self.net.lanes[*from as usize], &self.net.lanes[*to as usize]);
            let problem = format!("a token from lane {} to lane {} is never taken", from.index, to.index);
            return Err(Refusal::plan(from.rank as usize, problem));
        }
        Ok(())
    }

    /// Every output holds what it must; says whether all are folds in rank order, and their hash.
    fn results(&self) -> Result<(bool, u64), Box<Refusal>> {
        let (mut rank_order, mut hash) = (true, 0);
        for block in 0..self.plans[0].blocks {
            for round in 0..self.memories.rounds {
                let mut fold = None;
                for rank in 0..self.plans.len() {
                    let b = block as usize;
                    let Some(found) = self.memories.output(rank, block, round) else { continue };
                    let wanted = || expected(self.collective, self.plans.len(), rank, b, round);
                    // Where it reduces, all ranks want the same.
                    let wanted = match self.collective.kind.reduces() {
                        true => *fold.get_or_insert_with(wanted),
                        false => wanted(),
                    };
                    rank_order &= found == wanted;
                    hash = found.hash_after(hash);
                    if !found.same_parts(wanted) {
                        return Err(self.wrong(rank, block, round, found));
                    }
                }
            }
        }
        Ok((rank_order, hash))
    }

    fn wrong(&self, rank: usize, block: u32, round: u32, found: Value) -> Box<Refusal> {
        let written_by = |step: &Step| match step {
            Step::Move { into: Some(span), .. } => {
                self.memories.is_output(*span) && span.blocks(self.plans[rank].blocks).any(|b| b == block)
            }
            _ => false,
        };
        let last = self.plans[rank]
            .lanes
            .iter()
            .enumerate()
            .rev()
            .find_map(|(lane, steps)| Some((lane, steps.steps.iter().rposition(written_by)?)));
        let problem = match last {
            Some(_) if self.collective.kind.reduces() => {
                diagnose(self.plans.len(), block as usize, round, found)
            }
            Some(_) => "is not what it should be".into(),
            None => "is never written".into(),
        };
        let problem = format!("in the end out[{block}] {problem}");
        match last {
            Some((lane, step)) => Refusal::step(self.plans, rank, lane, step, problem),
            None => Refusal::plan(rank, problem),
        }
    }

    /// No rank has left before all have come.
    fn everybody_came(&self) -> Result<(), Box<Refusal>> {
        let Some(order) = &self.order else { return Ok(()) };
        for rank in 0..self.plans.len() {
            let lanes = self.net.first[rank] as usize..self.net.first[rank + 1] as usize;
            if let Some(other) = order.unheard(lanes) {
                let other = self.net.lanes[other].rank;
                return Err(Refusal::plan(rank, format!("it may leave before rank {other} has come")));
            }
        }
        Ok(())
    }
}

/// Whether the engine may lend the source of such a step.
fn lends(step: &Step) -> bool {
    matches!(step, Step::Move { sources, finish: false, .. }
        if matches!(sources.as_slice(), [Source::Local(_)]))
}

/// Combines one more value into what is held of a step's block `index`.
fn hold(held: &mut Vec<Value>, first: bool, index: usize, value: Value) -> Result<(), String> {
    if first {
        held.push(value);
        return Ok(());
    }
    let left = &mut held[index];
    match (*left == Value::EMPTY, value == Value::EMPTY) {
        (true, true) => {}
        (false, false) => *left = left.combine(value),
        _ => return Err("its sources are of different lengths".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, LaneBuilder, from, input, output};

    /// What comes of an all-reduce of two ranks in place, where both give away whatever they send.
    fn generous(write: impl Fn(&mut LaneBuilder<'_>, usize, usize)) -> Result<Outcome, Box<Refusal>> {
        let collective = CollectiveKind::AllReduce.at(0);
        let plans = [(0, 1), (1, 0)].map(|(rank, peer)| {
            let mut plan = Builder::new(2, 1).lends();
            write(&mut plan.lane(0), rank, peer);
            plan.fused()
        });
        let net = Net::new(&plans).unwrap();
        let (rounds, lengths, ordered) = (2, Lengths::Even, Ordered::Yes);
        let mode = Mode { credit: 2, in_place: true, rounds, lengths, ordered };
        let mut run = Run::new(collective, &plans, net, mode);
        run.given.iter_mut().flatten().flatten().for_each(|gives| *gives = true);
        run.run()
    }

    #[test]
    fn what_is_given_away_is_not_looked_at() {
        let exchange = |lane: &mut LaneBuilder<'_>, rank: usize, peer: usize| {
            lane.send(input(peer), peer).reduce(input(rank), from(peer), output(rank));
            lane.finish(output(rank), output(rank)).send(output(rank), peer).recv(peer, output(peer));
        };
        assert!(generous(exchange).is_ok(), "the answer comes there");
        let both = |lane: &mut LaneBuilder<'_>, _: usize, peer: usize| {
            for block in 0..2 {
                lane.send(input(block), peer).reduce(input(block), from(peer), output(block));
                lane.finish(output(block), output(block));
            }
        };
        let refusal = generous(both).unwrap_err().to_string();
        assert!(refusal.contains("reads block 0 of in[0] before that is written"), "{refusal}");
        let kept = |lane: &mut LaneBuilder<'_>, rank: usize, peer: usize| {
            lane.send(input(peer), peer).reduce(input(rank), from(peer), output(rank));
            lane.finish(output(rank), output(rank));
        };
        assert!(generous(kept).unwrap_err().to_string().contains("in the end out[0]"));
    }
}
