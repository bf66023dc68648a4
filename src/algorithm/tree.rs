//! Up and down binary trees: two at once, so that every rank works as inner node in one of them and as
//! leaf in the other, each with half of the data.
//!
//! Tree 0 of 8 ranks numbers its nodes in order, so that a parent stands between its children; tree 1 is
//! its mirror image (shifted by one where the number is odd):
//!
//! ```text
//!   0 ────────────────┐                         ┌──────────────── 7
//!             4 ◀─────┘                         └─────▶ 3
//!         2       6                                 5       1
//!       1   3   5   7                             6   4   2   0
//! ```
//!
//! Going up, a rank folds its children's messages and its own input and sends that to its parent; going
//! down, it passes on what its parent sends. Up and down are lanes of their own, so that one round goes
//! up while the one before comes down.
//!
//! | collective       | time                                          |
//! | ---------------- | --------------------------------------------- |
//! | all_reduce       | 2 log n α + 2 N β + N γ, over many rounds     |
//! | reduce           | (1 + log n) α + N (β + γ), over many rounds   |
//! | broadcast        | (1 + log n) α + N β, over many rounds         |
//! | gather, scatter  | log n α + (n-1)/n N β                         |
//! | barrier          | 2 log n α                                     |
//!
//! Source: Sanders, Speck and Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and
//! scan" (2009); NCCL's `ncclGetDtree`. With a root, it stands on top of two trees of the others. Gather
//! and scatter use a binomial tree, in which the blocks below a rank are neighbours.

use super::{Algorithm, widest_half};
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Tree;

impl Algorithm for Tree {
    fn name(&self) -> &'static str {
        "tree"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllReduce, Barrier, Broadcast, Gather, Reduce, Scatter};
        matches!(kind, AllReduce | Reduce | Broadcast | Gather | Scatter | Barrier)
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let (n, root) = (topology.size(), collective.root as usize);
        match collective.kind {
            CollectiveKind::Reduce => reduce(rank, n, root),
            CollectiveKind::Broadcast => broadcast(rank, n, root),
            CollectiveKind::Gather => gather(rank, n, root),
            CollectiveKind::Scatter => scatter(rank, n, root),
            CollectiveKind::Barrier => barrier(rank, n),
            _ => all_reduce(rank, n),
        }
    }
}

/// A node and its neighbours in a tree.
struct Node {
    parent: Option<usize>,
    low: Option<usize>,
    high: Option<usize>,
}

impl Node {
    /// Member `member` of `n` in tree 0 or 1.
    fn new(tree: usize, member: usize, n: usize) -> Self {
        let place = |member: usize| match (tree, n % 2) {
            (0, _) => member,
            (_, 0) => n - 1 - member,
            _ => (member + n - 1) % n,
        };
        let member_at = |place: usize| match (tree, n % 2) {
            (0, _) => place,
            (_, 0) => n - 1 - place,
            _ => (place + 1) % n,
        };
        let node = Self::in_order(place(member), n);
        let Self { parent, low, high } = node;
        Self { parent: parent.map(member_at), low: low.map(member_at), high: high.map(member_at) }
    }

    /// The lowest set bit tells the height: odd places are leaves, place 0 is the root and has one child.
    fn in_order(place: usize, n: usize) -> Self {
        if place == 0 {
            let high = (n > 1).then(|| n.next_power_of_two() / 2);
            return Self { parent: None, low: None, high };
        }
        let bit = 1 << place.trailing_zeros();
        let above = (place ^ bit) | bit << 1;
        let parent = if above < n { above } else { place ^ bit };
        // Where the tree is cut off on the right, the next smaller subtree moves up.
        let steps =
            || std::iter::successors(Some(bit / 2), |step| Some(step / 2)).take_while(|&step| step > 0);
        let low = steps().next().map(|step| place - step);
        let high = steps().map(|step| place + step).find(|&child| child < n);
        Self { parent: Some(parent), low, high }
    }

    fn children(&self) -> impl Iterator<Item = usize> {
        self.low.into_iter().chain(self.high)
    }

    /// Gives the fold of the lower subtree, this node's input and the higher subtree; a leaf's is its
    /// input as it is.
    fn fold(&self, lane: &mut LaneBuilder<'_>, tree: usize) -> Span {
        let (mine, sum) = (input(tree), scratch(tree as u8, tree));
        let mut so_far = Source::from(mine);
        if let Some(low) = self.low {
            lane.reduce(from(low), mine, sum);
            so_far = sum.into();
        }
        if let Some(high) = self.high {
            lane.reduce(so_far, from(high), sum);
            so_far = sum.into();
        }
        so_far.span().expect("a fold is stored")
    }
}

fn all_reduce(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(2, 1).lends();
    for tree in 0..2 {
        let node = Node::new(tree, rank, n);
        let mut up = plan.lane(tree as u8);
        let sum = node.fold(&mut up, tree);
        match node.parent {
            Some(parent) => {
                up.send(sum, parent);
                down(&mut plan.lane(tree as u8), &node, parent, tree);
            }
            None => {
                up.finish(sum, output(tree));
                node.children().for_each(|child| _ = up.send(output(tree), child));
            }
        }
    }
    plan
}

fn down(lane: &mut LaneBuilder<'_>, node: &Node, parent: usize, tree: usize) {
    lane.recv(parent, output(tree));
    node.children().for_each(|child| _ = lane.send(output(tree), child));
}

/// A rank's place in `tree` of all ranks but the root, which stands on top of it.
fn below_root(tree: usize, rank: usize, n: usize, root: usize) -> Node {
    let member = (rank + n - root - 1) % n;
    let rank_of = |member: usize| (root + 1 + member) % n;
    let Node { parent, low, high } = Node::new(tree, member, n - 1);
    Node { parent: parent.map(rank_of).or(Some(root)), low: low.map(rank_of), high: high.map(rank_of) }
}

/// The rank on top of `tree` of all ranks but the root.
fn top(tree: usize, n: usize, root: usize) -> usize {
    let others = (0..n).filter(|&rank| rank != root);
    others
        .into_iter()
        .find(|&rank| below_root(tree, rank, n, root).parent == Some(root))
        .expect("n is 2 or more")
}

fn reduce(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(2, 1).lends();
    for tree in 0..2 {
        let mut lane = plan.lane(tree as u8);
        if rank == root {
            let sum = scratch(tree as u8, tree);
            lane.reduce(input(tree), from(top(tree, n, root)), sum).finish(sum, output(tree));
        } else {
            let node = below_root(tree, rank, n, root);
            let sum = node.fold(&mut lane, tree);
            lane.send(sum, node.parent.unwrap_or(root));
        }
    }
    plan
}

fn broadcast(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(2, 1).lends();
    for tree in 0..2 {
        let mut lane = plan.lane(tree as u8);
        if rank == root {
            lane.send(input(tree), top(tree, n, root)).copy(input(tree), output(tree));
        } else {
            let node = below_root(tree, rank, n, root);
            down(&mut lane, &node, node.parent.unwrap_or(root), tree);
        }
    }
    plan
}

/// A rank's place in the binomial tree of a root: its parent, and its children with the number of ranks
/// in their subtrees. Subtrees are runs of ranks that begin with their top.
struct Binomial {
    parent: Option<usize>,
    children: Vec<(usize, usize)>,
    /// Ranks in this rank's own subtree.
    size: usize,
}

impl Binomial {
    fn new(rank: usize, n: usize, root: usize) -> Self {
        let distance = (rank + n - root) % n;
        let bits = (0..usize::BITS).map(|bit| 1 << bit);
        let below = bits.take_while(|&bit| distance + bit < n && distance & (2 * bit - 1) == 0);
        let subtree = |bit: usize| ((rank + bit) % n, bit.min(n - distance - bit));
        let children: Vec<_> = below.map(subtree).collect();
        let lowest = distance & distance.wrapping_neg();
        let parent = (distance > 0).then(|| (rank + n - lowest) % n);
        let size = 1 + children.iter().map(|&(_, size)| size).sum::<usize>();
        Self { parent, children, size }
    }
}

fn gather(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(n, widest_half(n));
    let mut lane = plan.lane(0);
    let Binomial { parent, children, size } = Binomial::new(rank, n, root);
    let place = |block| if parent.is_some() { scratch(0, block) } else { output(block) };
    lane.copy(input(rank), place(rank));
    children.iter().for_each(|&(child, size)| _ = lane.recv(child, place(child).wide(size)));
    parent.iter().for_each(|&parent| _ = lane.send(place(rank).wide(size), parent));
    plan
}

fn scatter(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(n, widest_half(n));
    let mut lane = plan.lane(0);
    let Binomial { parent, children, size } = Binomial::new(rank, n, root);
    let place = |block| if parent.is_some() { scratch(0, block) } else { input(block) };
    parent.iter().for_each(|&parent| _ = lane.recv(parent, place(rank).wide(size)));
    children.iter().rev().for_each(|&(child, size)| _ = lane.send(place(child).wide(size), child));
    lane.copy(place(rank), output(rank));
    plan
}

fn barrier(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(1, 1);
    let mut lane = plan.lane(0);
    let node = Node::new(0, rank, n);
    node.children().for_each(|child| _ = lane.recv(child, output(0)));
    if let Some(parent) = node.parent {
        lane.send(input(0), parent).recv(parent, output(0));
    }
    node.children().for_each(|child| _ = lane.send(output(0), child));
    plan
}
