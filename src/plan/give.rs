//! Which sends give their source away: in place, the receiver may store its answer there.
//!
//! ```text
//!   send: in[1] -> to 1                         gives: in place, in[1] is out[1], and ...
//!   in[0] + from 1 -> out[0] -> to 1            (rank 1 is answered, so by symmetry it answers)
//!   recv: from 1 -> out[1]                      ... the next that is done with it
//! ```
//! From the send on until the peer's message is stored over it, nobody of this rank looks at the source, so that it
//! does not matter what lies there. The prover runs these plans with nothing defined in what is given.

use super::step::{Lane, Memory, Plan, Source, Span, Step};

/// For each lane and step, whether it gives its source away. Only where there is one lane: others may look at any
/// time. And only where this rank exchanges sums with one other: where that only reads there is nothing to gain.
pub fn given(plan: &Plan) -> Vec<Vec<bool>> {
    let given = |lane: &Lane| match plan.lanes.len() {
        1 if plan.lends => given_by(lane, plan.blocks),
        _ => vec![false; lane.steps.len()],
    };
    plan.lanes.iter().map(given).collect()
}

fn given_by(lane: &Lane, blocks: u32) -> Vec<bool> {
    let partner = partner(lane);
    let gives = |(at, step): (usize, &Step)| {
        let Some((span, peer)) = sent(step).filter(|(_, peer)| partner == Some(*peer)) else { return false };
        let touches = |step: &&Step| step.spans().any(|other| overlap(span, other, blocks));
        let next = lane.steps[at + 1..].iter().find(touches);
        next.is_some_and(|step| overwrites(step, span, peer))
    };
    lane.steps.iter().enumerate().map(gives).collect()
}

/// The one peer of a lane, if it is sent sums of its own messages and more, as many messages as come from it: then
/// it does the same.
fn partner(lane: &Lane) -> Option<u32> {
    let sent = || lane.steps.iter().flat_map(Step::receivers);
    let received = || lane.steps.iter().flat_map(Step::senders);
    let peer = *sent().next()?;
    let alone = sent().all(|to| *to == peer) && received().all(|from| from == peer);
    let even = sent().count() == received().count();
    let answers = |step: &Step| match step {
        Step::Move { sources, to, .. } => {
            sources.len() > 1 && sources.contains(&Source::From(peer)) && to[..] == [peer]
        }
        _ => false,
    };
    (alone && even && lane.steps.iter().any(answers)).then_some(peer)
}

/// What of the vector a plain send sends, and to whom.
fn sent(step: &Step) -> Option<(Span, u32)> {
    match step {
        Step::Move { sources, finish: false, into: None, to } => match (&sources[..], &to[..]) {
            (&[Source::Local(span)], &[peer]) => in_vector(span).then_some((span, peer)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a step stores a message from `peer` over these blocks.
fn overwrites(step: &Step, span: Span, peer: u32) -> bool {
    match step {
        Step::Move { sources, into: Some(into), .. } => {
            let same = (into.first, into.count, into.run) == (span.first, span.count, span.run);
            sources[..] == [Source::From(peer)] && same && in_vector(*into)
        }
        _ => false,
    }
}

/// Whether it is the caller's memory: input or output, which in place are the same.
fn in_vector(span: Span) -> bool {
    matches!(span.memory, Memory::Input | Memory::Output)
}

/// Whether two spans are in part the same memory, in place.
fn overlap(a: Span, b: Span, blocks: u32) -> bool {
    let same_memory = a.memory == b.memory || in_vector(a) && in_vector(b);
    same_memory && a.blocks(blocks).any(|block| b.blocks(blocks).any(|other| other == block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, from, input, output, scratch};

    /// What the first step of a lane gives, whose later steps are these.
    fn first_gives(write: impl FnOnce(&mut crate::plan::LaneBuilder<'_>)) -> bool {
        let mut plan = Builder::new(2, 2).lends();
        let mut lane = plan.lane(0);
        lane.send(input(1), 1);
        write(&mut lane);
        given(&plan.fused())[0][0]
    }

    #[test]
    fn what_is_overwritten_by_the_answer_is_given() {
        assert!(first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).send(output(0), 1).recv(1, output(1));
        }));
    }

    #[test]
    fn what_is_looked_at_or_kept_is_not_given() {
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).send(output(0), 1);
        }));
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).send(output(0), 1);
            lane.copy(input(1), scratch(0, 1)).recv(1, output(1));
        }));
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).send(output(0), 1).recv(2, output(1));
        }));
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).send(output(0), 1);
            lane.reduce(from(1), input(1), output(1));
        }));
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0).wide(2), output(0).wide(2)).send(output(0).wide(2), 1);
        }));
    }

    #[test]
    fn a_peer_that_is_not_answered_is_given_nothing() {
        assert!(!first_gives(|lane| {
            lane.reduce(from(1), input(0), output(0)).recv(1, output(1));
        }));
    }
}
