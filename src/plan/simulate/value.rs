//! What a block holds during a proof: fingerprints of the contributions that went into it.

use crate::plan::collective::{Collective, CollectiveKind};
use crate::plan::id::mix;

/// Two fingerprints of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// The sum of the contributions' tokens: equal for equal multisets of contributions.
    sum: u64,
    /// A hash of the tree of combinations: equal only for the same contributions combined in the same
    /// order with the same brackets.
    tree: u64,
}

impl Value {
    /// Nothing was stored.
    pub(super) const UNDEFINED: Self = Self { sum: 0, tree: 0 };
    /// The block has no elements in this round.
    pub(super) const EMPTY: Self = Self { sum: 1, tree: 0 };

    /// What `rank` contributes to `block` in `round`.
    pub(super) fn contribution(rank: usize, block: usize, round: u32) -> Self {
        let place = (rank as u64) << 34 | (block as u64) << 4 | u64::from(round);
        let sum = mix(place.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self { sum, tree: sum.rotate_left(32) }
    }

    /// This ⊕ right.
    pub(super) fn combine(self, right: Self) -> Self {
        let left = self.tree.wrapping_mul(0xbb67_ae85_84ca_a73b);
        Self { sum: self.sum.wrapping_add(right.sum), tree: mix(left ^ right.tree) }
    }

    /// After the operator's finish: nothing that could be combined further or finished again.
    pub(super) fn finish(self) -> Self {
        Self { sum: mix(!self.sum), tree: mix(!self.tree) }
    }

    /// A hash of this value and those before it.
    pub(super) fn hash_after(self, before: u64) -> u64 {
        mix(before.rotate_left(1) ^ self.tree)
    }

    /// Whether both have the same contributions, in whatever order.
    pub(super) fn same_parts(self, other: Self) -> bool {
        self.sum == other.sum
    }
}

/// What output `block` of `rank` must hold in the end: where it reduces, the left fold in rank order.
pub(super) fn expected(collective: Collective, ranks: usize, rank: usize, block: usize, round: u32) -> Value {
    match collective.kind {
        CollectiveKind::AllReduce | CollectiveKind::ReduceScatter | CollectiveKind::Reduce => {
            fold(0..ranks, block, round).finish()
        }
        CollectiveKind::AllGather | CollectiveKind::Gather => Value::contribution(block, block, round),
        CollectiveKind::Broadcast | CollectiveKind::Scatter => {
            Value::contribution(collective.root as usize, block, round)
        }
        CollectiveKind::AllToAll => Value::contribution(block, rank, round),
        CollectiveKind::Barrier => Value::EMPTY,
    }
}

fn fold(ranks: impl Iterator<Item = usize>, block: usize, round: u32) -> Value {
    let contributions = ranks.map(|rank| Value::contribution(rank, block, round));
    contributions.reduce(Value::combine).unwrap_or(Value::UNDEFINED)
}

/// Says in what `found` differs from a finished sum of all ranks' contributions, as far as that is simple.
pub(super) fn diagnose(ranks: usize, block: usize, round: u32, found: Value) -> String {
    let all = fold(0..ranks, block, round);
    if found.same_parts(all) {
        return "is never finished".into();
    }
    if found.same_parts(all.finish().finish()) {
        return "is finished twice".into();
    }
    for rank in 0..ranks {
        let one = Value::contribution(rank, block, round);
        let lacks = Value { sum: all.sum.wrapping_sub(one.sum), tree: 0 };
        if found.same_parts(lacks.finish()) {
            return format!("lacks the contribution of rank {rank}");
        }
        if found.same_parts(all.combine(one).finish()) {
            return format!("has the contribution of rank {rank} twice");
        }
    }
    "does not have each rank's contribution once".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_tells_order_and_brackets_and_the_sum_does_not() {
        let [a, b, c] = [0, 1, 2].map(|rank| Value::contribution(rank, 5, 1));
        let left = a.combine(b).combine(c);
        for other in [b.combine(a).combine(c), a.combine(b.combine(c)), c.combine(a).combine(b)] {
            assert!(other.same_parts(left) && other != left);
        }
        assert!(!a.combine(a).same_parts(a.combine(b)));
        assert!(!left.finish().same_parts(left) && !left.finish().finish().same_parts(left.finish()));
    }
}
