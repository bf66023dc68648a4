//! All-gather and reduce-scatter: the block of each rank is the shard of its place on its host.
//!
//! 2 hosts of ranks 0 1 2 and 3 4; block 2 is kept by rank 3 on the other host, as the block of a third place:
//!
//! ```text
//!   all-gather        2 ──▶ 0, 1, 3      each sends its block to the keeper on the next host and to its neighbours;
//!                     3 ──▶ 4            a keeper hands it on to the next host, if there is one more, and to its own
//!   reduce-scatter    4 ──▶ 3 ──▶ 2      neighbours give a keeper their inputs; it adds them to what comes from the
//!                     0, 1 ────▶ 2       host before and sends that on, until the block is home
//! ```

use crate::algorithm::hosts::Hosts;
use crate::plan::{Builder, LaneBuilder, Source, from, input, output, scratch};

pub(super) fn all_gather(hosts: &Hosts) -> Builder {
    let mut plan = Builder::new(hosts.ranks(), 1).lends();
    let mut lane = plan.lane(0);
    for steps in 0..hosts.count() {
        let blocks = hosts.of(hosts.back(steps));
        for turn in 0..hosts.turns(blocks.len()) {
            if let Some(shard) = hosts.shard(hosts.place, turn, blocks.len()) {
                pass_on(&mut lane, hosts, steps, (shard, blocks[shard]));
            }
            for other in hosts.others() {
                if let Some(shard) = hosts.shard(other, turn, blocks.len()) {
                    lane.recv(hosts.here()[other], output(blocks[shard]));
                }
            }
        }
    }
    plan
}

/// A keeper takes a block from the host before and hands it on; it has its own.
fn pass_on(lane: &mut LaneBuilder<'_>, hosts: &Hosts, steps: usize, (shard, block): (usize, usize)) {
    let (prev, next) = hosts.around(shard);
    match steps {
        0 => lane.copy(input(block), output(block)),
        _ => lane.recv(prev, output(block)),
    };
    if steps + 1 < hosts.count() {
        lane.send(output(block), next);
    }
    hosts.others().for_each(|other| _ = lane.send(output(block), hosts.here()[other]));
}

pub(super) fn reduce_scatter(hosts: &Hosts) -> Builder {
    let mut plan = Builder::new(hosts.ranks(), 1).lends();
    let mut lane = plan.lane(0);
    // The blocks of the host before this one begin here; this host's own come last.
    for steps in 1..=hosts.count() {
        let blocks = hosts.of(hosts.back(steps));
        for turn in 0..hosts.turns(blocks.len()) {
            for other in hosts.others() {
                if let Some(shard) = hosts.shard(other, turn, blocks.len()) {
                    lane.send(input(blocks[shard]), hosts.here()[other]);
                }
            }
            if let Some(shard) = hosts.shard(hosts.place, turn, blocks.len()) {
                add_to(&mut lane, hosts, steps, (shard, blocks[shard]));
            }
        }
    }
    plan
}

/// A keeper adds this host's inputs to what comes from the host before, and sends that on, or is where it belongs.
fn add_to(lane: &mut LaneBuilder<'_>, hosts: &Hosts, steps: usize, (shard, block): (usize, usize)) {
    let (prev, next) = hosts.around(shard);
    let neighbours = hosts.others().map(|other| from(hosts.here()[other]));
    let before = (steps > 1).then(|| from(prev));
    let mut sum = input(block);
    for operand in before.into_iter().chain(neighbours) {
        lane.reduce(operand, Source::from(sum), scratch(0, block));
        sum = scratch(0, block);
    }
    match steps < hosts.count() {
        true => lane.send(sum, next),
        false => lane.finish(sum, output(block)),
    };
}
