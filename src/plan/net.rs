//! The lanes of all ranks and the links between them: who sends to whom on which channel. The prover and
//! the pricer run plans over it.

use super::refusal::Refusal;
use super::step::{Plan, Step};
use crate::topology::Channel;

/// One direction of a link.
#[derive(Clone, Debug)]
pub(super) struct Link<L> {
    /// The lane that sends.
    pub(super) producer: u32,
    /// The lane that receives.
    pub(super) consumer: u32,
    /// What is on its way.
    pub(super) state: L,
}

/// A lane of some rank.
#[derive(Clone, Debug)]
pub(super) struct LaneState {
    pub(super) rank: u32,
    /// Its number within the rank.
    pub(super) index: u8,
    pub(super) round: u32,
    pub(super) step: u32,
    pub(super) receives: Peers,
    pub(super) sends: Peers,
}

/// The peers of a lane and the links to or from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    links: Vec<(u32, u32)>,
    /// Where the last one looked up was found: the next one is mostly that or the one after.
    last: usize,
}

impl Peers {
    fn new(mut peers: Vec<u32>) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self { links: peers.into_iter().map(|peer| (peer, u32::MAX)).collect(), last: 0 }
    }

    fn find(&self, peer: u32) -> Option<usize> {
        self.links.binary_search_by_key(&peer, |&(peer, _)| peer).ok()
    }

    /// The link to or from `peer`, one of this lane's.
    pub(super) fn link(&mut self, peer: u32) -> usize {
        let near = [self.last, self.last + 1];
        let guess = near.into_iter().find(|&at| self.links.get(at).is_some_and(|&(rank, _)| rank == peer));
        self.last = guess.unwrap_or_else(|| self.find(peer).expect("a peer of this lane"));
        self.links[self.last].1 as usize
    }
}

/// All ranks' lanes and the links between them.
#[derive(Clone, Debug)]
pub(super) struct Net<L> {
    pub(super) lanes: Vec<LaneState>,
    pub(super) links: Vec<Link<L>>,
    /// The first lane of each rank, and the number of lanes.
    pub(super) first: Vec<u32>,
    /// Messages per round.
    pub(super) messages: u64,
}

impl<L: Default> Net<L> {
    /// Pairs what is sent with what is received.
    pub(super) fn new(plans: &[Plan]) -> Result<Self, Box<Refusal>> {
        let mut net = Self { lanes: Vec::new(), links: Vec::new(), first: vec![0], messages: 0 };
        for (rank, plan) in plans.iter().enumerate() {
            for (index, lane) in plan.lanes.iter().enumerate() {
                net.add_lane(rank, index, &lane.steps);
            }
            net.first.push(net.lanes.len() as u32);
        }
        net.connect(plans)?;
        Ok(net)
    }

    fn add_lane(&mut self, rank: usize, index: usize, steps: &[Step]) {
        let (mut receives, mut sends) = (Vec::new(), Vec::new());
        let note = |peers: &mut Vec<u32>, peer: u32| {
            if peers.last() != Some(&peer) {
                peers.push(peer);
            }
        };
        for step in steps {
            step.senders().for_each(|peer| note(&mut receives, peer));
            step.receivers().iter().for_each(|&peer| note(&mut sends, peer));
            self.messages += step.receivers().len() as u64;
        }
        let (receives, sends) = (Peers::new(receives), Peers::new(sends));
        let (rank, index) = (rank as u32, index as u8);
        self.lanes.push(LaneState { rank, index, round: 0, step: 0, receives, sends });
    }

    fn connect(&mut self, plans: &[Plan]) -> Result<(), Box<Refusal>> {
        for sender in 0..self.lanes.len() {
            let (rank, index) = (self.lanes[sender].rank, self.lanes[sender].index);
            let channel = plans[rank as usize].lanes[usize::from(index)].channel;
            for at in 0..self.lanes[sender].sends.links.len() {
                let peer = self.lanes[sender].sends.links[at].0;
                let number = self.links.len() as u32;
                let consumer = self.receiver(plans, rank, peer, channel, number).ok_or_else(|| {
                    let problem = format!("rank {peer} has no lane that receives this on channel {channel}");
                    self.blame(plans, sender, |step| step.receivers().contains(&peer), problem)
                })?;
                self.lanes[sender].sends.links[at].1 = number;
                self.links.push(Link { producer: sender as u32, consumer, state: L::default() });
            }
        }
        self.all_paired(plans)?;
        self.one_lane_each(plans)
    }

    /// The lane of `peer` that receives from `rank` on `channel`; it notes the link's number.
    fn receiver(
        &mut self,
        plans: &[Plan],
        rank: u32,
        peer: u32,
        channel: Channel,
        number: u32,
    ) -> Option<u32> {
        let lanes = self.first[peer as usize]..self.first[peer as usize + 1];
        for lane in lanes {
            let state = &mut self.lanes[lane as usize];
            if plans[peer as usize].lanes[usize::from(state.index)].channel != channel {
                continue;
            }
            if let Some(at) = state.receives.find(rank) {
                state.receives.links[at].1 = number;
                return Some(lane);
            }
        }
        None
    }

    fn all_paired(&self, plans: &[Plan]) -> Result<(), Box<Refusal>> {
        for (lane, state) in self.lanes.iter().enumerate() {
            if let Some(&(peer, _)) = state.receives.links.iter().find(|(_, link)| *link == u32::MAX) {
                let problem = format!("rank {peer} has no lane of its own that sends this on this channel");
                return Err(self.blame(plans, lane, |step| step.senders().any(|rank| rank == peer), problem));
            }
        }
        Ok(())
    }

    /// Each direction of a (peer, channel) belongs to one lane.
    fn one_lane_each(&self, plans: &[Plan]) -> Result<(), Box<Refusal>> {
        for (rank, plan) in plans.iter().enumerate() {
            let lanes = self.first[rank] as usize..self.first[rank + 1] as usize;
            for b in lanes.clone() {
                for a in lanes.start..b {
                    if plan.lanes[a - lanes.start].channel != plan.lanes[b - lanes.start].channel {
                        continue;
                    }
                    let (a, state) = (&self.lanes[a], &self.lanes[b]);
                    let shared = |mine: &Peers, theirs: &Peers| {
                        mine.links
                            .iter()
                            .find(|&&(peer, _)| theirs.find(peer).is_some())
                            .map(|&(peer, _)| peer)
                    };
                    let sent = shared(&state.sends, &a.sends);
                    let received = shared(&state.receives, &a.receives);
                    if let Some(peer) = sent.or(received) {
                        let problem = format!("lane {} uses the same channel with rank {peer}", a.index);
                        let uses = |step: &Step| match sent {
                            Some(_) => step.receivers().contains(&peer),
                            None => step.senders().any(|rank| rank == peer),
                        };
                        return Err(self.blame(plans, b, uses, problem));
                    }
                }
            }
        }
        Ok(())
    }

    /// The lane with number `index` of the rank of `lane`.
    pub(super) fn sibling(&self, lane: usize, index: u8) -> usize {
        self.first[self.lanes[lane].rank as usize] as usize + usize::from(index)
    }

    /// Refuses the last step of `lane` that does such a thing.
    pub(super) fn blame(
        &self,
        plans: &[Plan],
        lane: usize,
        does: impl Fn(&Step) -> bool,
        problem: String,
    ) -> Box<Refusal> {
        let (rank, index) = (self.lanes[lane].rank as usize, usize::from(self.lanes[lane].index));
        match plans[rank].lanes[index].steps.iter().rposition(does) {
            Some(step) => Refusal::step(plans, rank, index, step, problem),
            None => Refusal::plan(rank, problem),
        }
    }
}
