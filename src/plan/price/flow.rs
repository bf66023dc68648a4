//! One run of all ranks' plans on a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::machine::Machine;
use super::{handling, ps};
use crate::plan::net::{LaneState, Net};
use crate::plan::refusal::Refusal;
use crate::plan::step::{Plan, Source, Step};
use crate::topology::Cost;

/// Picoseconds.
type Time = u64;

/// What is on its way over a link.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// When each waiting message arrives, and whether it is lent.
    messages: VecDeque<(Time, bool)>,
    /// When each place that was given back is known to the sender.
    credits: VecDeque<Time>,
    /// How many places have been used.
    used: u32,
    /// When the link has carried all that was sent.
    free: Time,
}

/// A run under way.
pub(super) struct Run<'a, F> {
    plans: &'a [Plan],
    machine: &'a Machine<F>,
    /// Bytes of a block in one round, and the number of rounds.
    block: u64,
    rounds: u64,
    /// Whether the vectors are more than caches hold.
    spills: bool,
    net: Net<Flow>,
    /// When each lane has done its last step.
    lanes: Vec<Time>,
    tokens: BTreeMap<(usize, usize), VecDeque<Time>>,
    /// When each core and each host's memory and network (out, in) are free.
    cores: Vec<Time>,
    /// The core of each rank, and the rank that each core ran last.
    core_of: Vec<u32>,
    ran: Vec<Option<u32>>,
    /// Whether a core's ranks take turns; and whether then their vectors and messages together, and their messages
    /// alone, do not stay in its cache.
    crowded: Vec<bool>,
    displaced: Vec<bool>,
    flooded: Vec<bool>,
    memories: Vec<Time>,
    networks: Vec<[Time; 2]>,
    /// Lanes that only wait for their core, by core.
    queues: Vec<BTreeSet<u32>>,
    /// Lanes that may go on and, numbered after them, cores that somebody waits for, by when; and when each of
    /// them is next to be tried.
    ready: BinaryHeap<Reverse<(Time, u32)>>,
    next: Vec<Time>,
    /// When all is done.
    end: Time,
}

impl<'a, F: Fn(usize, usize) -> Cost> Run<'a, F> {
    pub(super) fn new(
        plans: &'a [Plan],
        machine: &'a Machine<F>,
        block: u64,
        rounds: u64,
        spills: bool,
    ) -> Result<Self, Box<Refusal>> {
        let net = Net::new(plans)?;
        let ranks = plans.len();
        // A core is known by the lowest rank that it runs.
        let core = |rank: usize| (machine.topology.host(rank), machine.topology.core(rank));
        let mut known = BTreeMap::new();
        let core_of: Vec<u32> =
            (0..ranks).map(|rank| *known.entry(core(rank)).or_insert(rank as u32)).collect();
        let mut on_core = vec![0; ranks];
        core_of.iter().for_each(|&core| on_core[core as usize] += 1);
        let crowded: Vec<bool> = on_core.iter().map(|&ranks| ranks > 1).collect();
        let held = held(plans, machine, &net, &core_of, (block, rounds));
        let cache = u64::from(machine.core.cache);
        let more = |bytes: fn(&Held) -> u64| -> Vec<bool> {
            let pairs = crowded.iter().zip(&held);
            pairs.map(|(&crowded, of)| crowded && bytes(of) > cache).collect()
        };
        let (displaced, flooded) = (more(|held| held.vectors + held.messages), more(|held| held.messages));
        Ok(Self {
            plans,
            machine,
            block,
            rounds,
            spills,
            lanes: vec![0; net.lanes.len()],
            tokens: BTreeMap::new(),
            cores: vec![0; ranks],
            core_of,
            ran: vec![None; ranks],
            crowded,
            displaced,
            flooded,
            memories: vec![0; ranks],
            networks: vec![[0; 2]; ranks],
            queues: vec![BTreeSet::new(); ranks],
            ready: (0..net.lanes.len() as u32).map(|lane| Reverse((0, lane))).collect(),
            next: [vec![0; net.lanes.len()], vec![Time::MAX; ranks]].concat(),
            end: 0,
            net,
        })
    }

    /// When the last rank is done.
    pub(super) fn run(mut self) -> Result<Time, Box<Refusal>> {
        while let Some(Reverse((now, who))) = self.ready.pop() {
            if self.next[who as usize] != now {
                continue;
            }
            self.next[who as usize] = Time::MAX;
            match (who as usize).checked_sub(self.net.lanes.len()) {
                None => self.advance(who as usize, now),
                Some(core) => self.serve(core, now),
            }
        }
        let stuck = self.net.lanes.iter().find(|lane| {
            let steps = &self.plans[lane.rank as usize].lanes[usize::from(lane.index)].steps;
            u64::from(lane.round) < self.rounds && !steps.is_empty()
        });
        match stuck {
            Some(lane) => {
                let (rank, index, step) = (lane.rank as usize, lane.index.into(), lane.step as usize);
                Err(Refusal::step(self.plans, rank, index, step, "it waits forever"))
            }
            None => Ok(self.end),
        }
    }

    /// Tries a lane or a core at `when`, unless it is tried before: then it finds out itself.
    fn wake(&mut self, who: u32, when: Time) {
        let next = &mut self.next[who as usize];
        if when < *next {
            *next = when;
            self.ready.push(Reverse((when, who)));
        }
    }

    /// Lets the first lane that waits for a core go on, once the core is free for it.
    fn serve(&mut self, core: usize, now: Time) {
        if let Some((lane, _)) = self.first_in_queue(core).filter(|(_, free)| *free <= now) {
            self.queues[core].remove(&lane);
            self.go_on(lane as usize);
        }
        if let Some((_, free)) = self.first_in_queue(core) {
            self.wake((self.net.lanes.len() + core) as u32, free.max(now));
        }
    }

    /// Who is next on a core, and when: the first lane of the rank that it ran last, or else of any.
    fn first_in_queue(&self, core: usize) -> Option<(u32, Time)> {
        let of = |rank: u32| self.net.first[rank as usize]..self.net.first[rank as usize + 1];
        let queue = &self.queues[core];
        let same = self.ran[core].and_then(|ran| queue.range(of(ran)).next());
        let lane = *same.or_else(|| queue.first())?;
        Some((lane, self.free(core, lane as usize)))
    }

    /// When a core is free for a lane.
    fn free(&self, core: usize, lane: usize) -> Time {
        let other = self.ran[core].is_some_and(|ran| ran != self.net.lanes[lane].rank);
        self.cores[core] + if other { Time::from(self.machine.core.switch_ns) * 1000 } else { 0 }
    }

    /// Tries the next step of a lane, which can begin at `now` at the earliest.
    fn advance(&mut self, lane: usize, now: Time) {
        let Some(step) = self.step(lane) else { return };
        let Some(start) = self.start(lane, step) else { return };
        let core = self.core(lane);
        if start > now && start > self.free(core, lane) {
            // Others may come first to what it shares.
            return self.wake(lane as u32, start);
        }
        self.queues[core].insert(lane as u32);
        self.serve(core, now);
    }

    /// The next step of a lane, if there is one.
    fn step(&self, lane: usize) -> Option<&'a Step> {
        let LaneState { rank, index, round, step, .. } = self.net.lanes[lane];
        let steps = &self.plans[rank as usize].lanes[usize::from(index)].steps;
        if u64::from(round) == self.rounds { None } else { steps.get(step as usize) }
    }

    /// Does the next step of a lane for which all is there.
    fn go_on(&mut self, lane: usize) {
        let Some(step) = self.step(lane) else { return };
        let Some(start) = self.start(lane, step) else { return };
        let free = self.free(self.core(lane), lane);
        let end = self.execute(lane, step, start.max(free));
        self.lanes[lane] = end;
        self.end = self.end.max(end);
        let state = &mut self.net.lanes[lane];
        state.step += 1;
        let steps = &self.plans[state.rank as usize].lanes[usize::from(state.index)].steps;
        if state.step as usize == steps.len() {
            (state.step, state.round) = (0, state.round + 1);
        }
        self.wake(lane as u32, end);
    }

    /// When a step can begin, as far as its messages and its credit are concerned; nothing while that is not
    /// known.
    fn start(&mut self, lane: usize, step: &Step) -> Option<Time> {
        let mut start = self.lanes[lane];
        if let Step::Join(from) = step {
            let tokens = self.tokens.get(&(self.net.sibling(lane, *from), lane))?;
            start = start.max(*tokens.front()?);
        }
        let Net { lanes, links, .. } = &mut self.net;
        let state = &mut lanes[lane];
        for peer in step.senders() {
            let link = &links[state.receives.link(peer)].state;
            start = start.max(link.messages.front()?.0);
        }
        for &peer in step.receivers() {
            let link = &links[state.sends.link(peer)].state;
            if link.used == self.machine.credit {
                start = start.max(*link.credits.front()?);
            }
        }
        Some(start)
    }

    fn core(&self, lane: usize) -> usize {
        self.core_of[self.net.lanes[lane].rank as usize] as usize
    }

    /// Does a step; says when it is done.
    fn execute(&mut self, lane: usize, step: &Step, start: Time) -> Time {
        let core = self.core(lane);
        self.ran[core] = Some(self.net.lanes[lane].rank);
        let begun = start + self.machine.core.ps_to_begin();
        let end = match step {
            Step::Post(to) => {
                let to = self.net.sibling(lane, *to);
                self.tokens.entry((lane, to)).or_default().push_back(begun);
                self.wake(to as u32, begun);
                begun
            }
            Step::Join(from) => {
                let from = self.net.sibling(lane, *from);
                self.tokens.get_mut(&(from, lane)).and_then(VecDeque::pop_front);
                begun
            }
            Step::Signal(_) | Step::Await(_) => {
                let rank = self.net.lanes[lane].rank as usize;
                let peers = step.senders().chain(step.receivers().iter().copied());
                let end = begun + peers.map(|peer| self.handling(rank, peer, 0)).sum::<Time>();
                self.take(lane, step, end);
                step.receivers().iter().for_each(|&peer| self.send(lane, peer, end, 0, false));
                end
            }
            Step::Move { sources, to, into, finish } => {
                let plain = into.is_none() && !finish && matches!(sources.as_slice(), [Source::Local(_)]);
                let rank = self.net.lanes[lane].rank as usize;
                let lent = plain && self.machine.lends && self.plans[rank].lends;
                let bytes = self.block * step.extent().map_or(0, |span| u64::from(span.count));
                let outputs = u64::from(into.is_some()) + if lent { 0 } else { to.len() as u64 };
                let messages = step.senders().count() + if lent { 0 } else { to.len() };
                let carried = if self.displaced[core] { messages as u64 } else { 0 };
                let touched = (sources.len() as u64 + outputs + carried) * bytes;
                let end = if outputs > 0 { self.work(rank, begun, touched) } else { begun };
                let peers = step.senders().chain(to.iter().copied());
                let end = end + peers.map(|peer| self.handling(rank, peer, bytes)).sum::<Time>();
                self.take(lane, step, end);
                to.iter().for_each(|&peer| self.send(lane, peer, end, bytes, lent));
                end
            }
        };
        self.cores[core] = end;
        end
    }

    /// When a step that began to work is done, which touches so many bytes.
    fn work(&mut self, rank: usize, begun: Time, touched: u64) -> Time {
        let done = begun + ps(touched, self.machine.core.touch_per_us);
        if !self.spills {
            return done;
        }
        let memory = &mut self.memories[self.machine.topology.host(rank)];
        *memory = begun.max(*memory) + ps(touched, self.machine.host.memory_per_us);
        done.max(*memory)
    }

    /// Takes a step's messages and gives their places back.
    fn take(&mut self, lane: usize, step: &Step, end: Time) {
        for peer in step.senders() {
            let number = self.net.lanes[lane].receives.link(peer);
            let back = end + self.latency(peer as usize, self.net.lanes[lane].rank as usize);
            let link = &mut self.net.links[number];
            if let Some((_, lent)) = link.state.messages.pop_front() {
                link.state.credits.push_back(back);
                let producer = link.producer;
                self.wake(producer, back);
                // The sender's call does not return before.
                self.end = self.end.max(if lent { back } else { 0 });
            }
        }
    }

    fn send(&mut self, lane: usize, peer: u32, end: Time, bytes: u64, lent: bool) {
        let (from, to) = (self.net.lanes[lane].rank as usize, peer as usize);
        let (cost, late) = ((self.machine.cost)(from, to), self.out_of_phase(from, to));
        let number = self.net.lanes[lane].sends.link(peer);
        let link = &mut self.net.links[number];
        let mut sent = end.max(link.state.free);
        if !self.machine.topology.together(from, to) {
            let host = |rank| self.machine.topology.host(rank);
            let busy = ps(bytes, self.machine.host.network_per_us.min(cost.bytes_per_us));
            for (host, side) in [(host(from), 0), (host(to), 1)] {
                // The network passes on what comes while more of it comes.
                let free = &mut self.networks[host][side];
                sent = sent.max(*free);
                *free = end.max(*free) + busy;
            }
        }
        // What is lent is not carried: the receiver fetches it.
        sent += if lent { 0 } else { ps(bytes, cost.bytes_per_us) };
        let arrives = sent + Time::from(cost.latency_ns) * 1000 + late;
        link.state.free = sent;
        link.state.messages.push_back((arrives, lent));
        match link.state.used < self.machine.credit {
            true => link.state.used += 1,
            false => _ = link.state.credits.pop_front(),
        }
        let consumer = link.consumer;
        self.wake(consumer, arrives);
    }

    /// What a message to another core loses where ranks take turns on either: a switch and more, since those
    /// of one core know nothing of the other's turns.
    fn out_of_phase(&self, from: usize, to: usize) -> Time {
        let topology = &self.machine.topology;
        let apart = topology.together(from, to) && !topology.neighbours(from, to);
        let turns = self.crowded[self.core_of[from] as usize] || self.crowded[self.core_of[to] as usize];
        if apart && turns { Time::from(self.machine.core.switch_ns) * 1250 } else { 0 }
    }

    /// What a message costs the core of `rank`: twice as much where it is cold.
    fn handling(&self, rank: usize, peer: u32, bytes: u64) -> Time {
        let times = if self.flooded[self.core_of[rank] as usize] { 2 } else { 1 };
        handling((self.machine.cost)(rank, peer as usize), times * bytes)
    }

    fn latency(&self, from: usize, to: usize) -> Time {
        Time::from((self.machine.cost)(from, to).latency_ns) * 1000
    }
}

/// The bytes of a core's ranks.
#[derive(Clone, Copy, Default)]
struct Held {
    vectors: u64,
    /// That may wait on their links.
    messages: u64,
}

/// What the ranks of each core have in hand.
fn held<F>(
    plans: &[Plan],
    machine: &Machine<F>,
    net: &Net<Flow>,
    core_of: &[u32],
    (block, rounds): (u64, u64),
) -> Vec<Held> {
    let Plan { blocks, width, .. } = plans[0];
    let mut held = vec![Held::default(); plans.len()];
    core_of.iter().for_each(|&core| held[core as usize].vectors += 2 * block * rounds * u64::from(blocks));
    let waiting = block * u64::from(width) * rounds.min(machine.credit.into());
    for end in net.links.iter().flat_map(|link| [link.producer, link.consumer]) {
        held[core_of[net.lanes[end as usize].rank as usize] as usize].messages += waiting;
    }
    held
}
