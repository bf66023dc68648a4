//! Proves the plans of all ranks together, by running them.
//!
//! A lane runs its steps in order and names each message's sender, so the result is the same whatever
//! the timing (a Kahn process network): one run settles all. It is made at the least credit that does,
//! over three rounds, in place and not, with even and uneven blocks, and follows by vector clocks what
//! happens before what. Credit 1 does for most plans. In a fused ring each rank must give a message
//! away to take one, so that it stands still when all links are full: it needs credit 2, which every
//! link has ([`CREDIT`]). Proved is, for every rank:
//!
//! - each result has each contribution exactly once and was finished exactly once;
//! - nobody waits forever, and no message or token is left over;
//! - nothing is read before it was written, scratch not before it was written in that round;
//! - no lane writes a block that another lane may be using, nor reads one that another may be writing: of
//!   the same rank, or of any rank where it is a block of the board;
//! - if the plan lends: no block is overwritten while another rank may still be reading it; and in place, where
//!   the receiver may store its answer in what is lent (`give`): nothing is read there before that has come;
//! - nobody leaves a barrier before all have come;
//! - spans are in range, of one length within a step, not wider than the plan's width.
//!
//! Besides it tells whether every result is the left fold of the contributions in rank order.

mod memory;
mod order;
mod run;
mod shape;
mod slots;
mod value;

use std::fmt;

use self::memory::Lengths;
use self::run::{Mode, Ordered, Outcome, Run};
use self::slots::Slots;
use super::collective::{Collective, CollectiveKind};
use super::id::plan_id;
use super::net::Net;
use super::refusal::Refusal;
use super::step::Plan;

/// Messages that may wait on every link, at the least; what runs with fewer runs with more.
pub const CREDIT: u8 = 2;
/// Rounds of a run: one that begins, one that finds scratch used, one more for what needs two to show.
const ROUNDS: u32 = 3;
/// Steps of all ranks up to which every mode is run, and up to which more than one round is.
const ALL_MODES: u64 = 4 << 20;
const ALL_ROUNDS: u64 = 16 << 20;
/// Words of vector clocks that may be compared in a run, and kept on links.
const CLOCK_WORK: u64 = 1 << 31;
const CLOCK_WORDS: u64 = 1 << 28;

/// What was proved of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Ranks.
    pub ranks: usize,
    /// Steps per round, of all ranks.
    pub steps: u64,
    /// Messages per round, of all ranks.
    pub messages: u64,
    /// Directed streams between ranks; `links` times `credit` messages can be in flight.
    pub links: usize,
    /// The longest chain of messages in one round.
    pub hops: u32,
    /// The credit of its links at which it runs.
    pub credit: u8,
    /// Whether every result is the left fold of the contributions in rank order.
    pub rank_order: bool,
    /// Whether sources may be lent.
    pub lends: bool,
    /// Over how many rounds.
    pub rounds: u32,
    /// Whether in place, too.
    pub in_place: bool,
    /// Whether with uneven and empty blocks, too.
    pub uneven: bool,
    /// Whether conflicts between lanes and over lent sources were looked for.
    pub ordered: bool,
    /// A hash of how each result was combined: equal for plans that give the same bits.
    pub results: u64,
    /// The plan's name; see [`plan_id`].
    pub id: u64,
}

/// Proves the plans of all ranks, given in rank order. Very large plans are proved in fewer modes; the
/// proof says which.
pub fn prove(collective: Collective, plans: &[Plan]) -> Result<Proof, Box<Refusal>> {
    if plans.is_empty() {
        return Err(Refusal::plan(0, "there is no rank"));
    }
    shape::check(collective, plans)?;
    let net = Net::new(plans)?;
    let steps = plans.iter().flat_map(|plan| &plan.lanes).map(|lane| lane.steps.len() as u64).sum();
    let modes = modes(collective, plans, &net, steps);
    let mut proof = Proof {
        ranks: plans.len(),
        steps,
        messages: net.messages,
        links: net.links.len(),
        hops: 0,
        credit: 1,
        rank_order: true,
        lends: plans.iter().all(|plan| plan.lends) && modes[0].ordered == Ordered::Yes,
        rounds: modes[0].rounds,
        in_place: modes.iter().any(|mode| mode.in_place),
        uneven: modes.iter().any(|mode| matches!(mode.lengths, Lengths::Uneven(_))),
        ordered: modes[0].ordered != Ordered::No,
        results: 0,
        id: plan_id(plans.iter().map(Plan::fingerprint)),
    };
    for mode in modes {
        let outcome = at_least_credit(&mut proof.credit, |credit| {
            Run::new(collective, plans, net.clone(), Mode { credit, ..mode }).run()
        });
        let outcome = outcome.map_err(|refusal| Box::new(Refusal { mode: mode.to_string(), ..*refusal }))?;
        proof.hops = proof.hops.max(outcome.hops);
        proof.rank_order &= outcome.rank_order;
        if !mode.in_place && mode.lengths == Lengths::Even {
            proof.results = outcome.results;
        }
    }
    proof.rank_order &= collective.kind.reduces();
    Ok(proof)
}

/// Runs at `credit`, and at more of it as long as that is to blame and there is more.
fn at_least_credit(
    credit: &mut u8,
    run: impl Fn(u8) -> Result<Outcome, Box<Refusal>>,
) -> Result<Outcome, Box<Refusal>> {
    loop {
        match run(*credit) {
            Err(refusal) if refusal.stuck && *credit < CREDIT => *credit += 1,
            result => return result,
        }
    }
}

/// Under which circumstances to run.
fn modes(collective: Collective, plans: &[Plan], net: &Net<Slots>, steps: u64) -> Vec<Mode> {
    let lanes = net.lanes.len() as u64;
    // A rank with one lane, nothing lent and no board cannot conflict with anybody.
    let needed = collective.kind == CollectiveKind::Barrier
        || plans.iter().any(|plan| plan.lends || plan.lanes.len() > 1 || plan.board > 0);
    let affordable = net.messages * u64::from(ROUNDS) * lanes <= CLOCK_WORK
        && net.links.len() as u64 * lanes <= CLOCK_WORDS
        && plans.len() as u64 * u64::from(plans[0].blocks) <= CLOCK_WORDS >> 4;
    let ordered = match (needed, affordable) {
        (false, _) => Ordered::Idle,
        (true, true) => Ordered::Yes,
        (true, false) => Ordered::No,
    };
    let plain = Mode { credit: 1, in_place: false, rounds: ROUNDS, lengths: Lengths::Even, ordered };
    if collective.kind == CollectiveKind::Barrier {
        return vec![Mode { rounds: 1, lengths: Lengths::Nothing, ..plain }];
    }
    if steps > ALL_MODES {
        return vec![Mode { rounds: if steps > ALL_ROUNDS { 1 } else { ROUNDS }, ..plain }];
    }
    let all_to_all = collective.kind == CollectiveKind::AllToAll;
    let mut lengths = vec![Lengths::Even];
    // All-to-all's blocks may differ only where each message knows its own edge alone.
    if !all_to_all || !plans.iter().any(|plan| plan.scratch > 0) {
        lengths.extend([Lengths::Uneven(0), Lengths::Uneven(2)]);
    }
    let places: &[bool] = if all_to_all { &[false] } else { &[false, true] };
    let mode = |in_place| lengths.iter().map(move |&lengths| Mode { in_place, lengths, ..plain });
    places.iter().copied().flat_map(mode).collect()
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.in_place { "in place" } else { "out of place" })?;
        match self.lengths {
            Lengths::Even => Ok(()),
            Lengths::Uneven(_) => f.write_str(", uneven blocks"),
            Lengths::Nothing => f.write_str(", empty"),
        }
    }
}

impl fmt::Display for Proof {
    /// `id 0123456789abcdef: 56 steps, 48 messages in 6 hops over 8 links; rank order no, lends yes; ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, messages, hops, links, credit, rounds, id, .. } = self;
        let yes = |holds| if holds { "yes" } else { "no" };
        write!(
            f,
            "id {id:016x}: {steps} steps, {messages} messages in {hops} hops over {links} links, credit {credit}; "
        )?;
        write!(f, "rank order {}, lends {}; ", yes(self.rank_order), yes(self.lends))?;
        write!(f, "{rounds} round{}", if *rounds == 1 { "" } else { "s" })?;
        for (proved, what) in [
            (self.in_place, "in place"),
            (self.uneven, "uneven"),
            (!self.ordered, "order of lanes not checked"),
        ] {
            if proved {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}
