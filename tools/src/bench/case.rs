//! One collective at one size, seen by one rank: its buffers, its call, and what should come out.

use std::ops::Range;

use kolo::plan::CollectiveKind;
use kolo::{Buffer, Communicator, ReduceOp};

use super::pattern::{Expected, Patterns};
use super::value::Value;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A collective.
    Collective(CollectiveKind),
    /// Every rank sends to the next and receives from the previous one.
    SendRecv,
}

impl Operation {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Collective(kind) => kind.name(),
            Self::SendRecv => "send_recv",
        }
    }

    /// The collective, if it is one.
    pub(crate) fn kind(self) -> Option<CollectiveKind> {
        match self {
            Self::Collective(kind) => Some(kind),
            Self::SendRecv => None,
        }
    }

    /// Whether it combines elements.
    pub(crate) fn reduces(self) -> bool {
        self.kind().is_some_and(CollectiveKind::reduces)
    }

    /// Whether it has a root.
    pub(crate) fn rooted(self) -> bool {
        self.kind().is_some_and(CollectiveKind::rooted)
    }

    /// Whether each rank has a block of its own, so that blocks can differ in length.
    pub(crate) fn ranked(self) -> bool {
        self.kind().is_some_and(|kind| kind.layout() == kolo::plan::Layout::Ranked)
    }
}

/// Where the result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Into another buffer.
    OutOfPlace,
    /// Over the input.
    InPlace,
}

/// One collective at one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) operation: Operation,
    /// Elements: of the whole vector, or of one rank's block.
    pub(crate) count: usize,
    /// Whether the ranks' blocks differ in length, some being empty.
    pub(crate) uneven: bool,
    pub(crate) root: usize,
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

impl Case {
    /// Whether the library does it in that form.
    pub(crate) fn does(&self, form: Form) -> bool {
        use CollectiveKind::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
        match (form, self.operation.kind()) {
            (Form::OutOfPlace, kind) => kind != Some(Broadcast),
            (Form::InPlace, Some(AllReduce | Broadcast | Reduce)) => true,
            (Form::InPlace, Some(AllGather | ReduceScatter)) => !self.uneven,
            (Form::InPlace, _) => false,
        }
    }

    /// Elements of the longer of a rank's two buffers, at the rank where it is longest.
    pub(crate) fn elements(&self) -> usize {
        let at_root = Self { rank: self.root, ..*self };
        at_root.input_len().max(at_root.output_len())
    }

    /// Elements of the longest of all ranks' buffers.
    pub(crate) fn longest(&self) -> usize {
        let longer = |rank| Self { rank, ..*self }.input_len().max(Self { rank, ..*self }.output_len());
        (0..self.size).map(longer).max().unwrap_or(0)
    }

    /// Elements of rank `rank`'s block.
    fn block(&self, rank: usize) -> usize {
        if self.uneven { uneven(self.count, rank) } else { self.count }
    }

    /// Elements that `from` sends to `to` in an all-to-all.
    fn edge(&self, from: usize, to: usize) -> usize {
        if self.uneven { uneven(self.count, from + 3 * to) } else { self.count }
    }

    /// Where rank `rank`'s block begins when all blocks lie side by side.
    fn start(&self, rank: usize) -> usize {
        (0..rank).map(|rank| self.block(rank)).sum()
    }

    fn total(&self) -> usize {
        self.start(self.size)
    }

    fn input_len(&self) -> usize {
        use CollectiveKind::{AllGather, AllToAll, Barrier, Broadcast, Gather, ReduceScatter, Scatter};
        match self.operation.kind() {
            Some(Barrier | Broadcast) => 0,
            Some(AllGather | Gather) => self.block(self.rank),
            Some(ReduceScatter) => self.total(),
            Some(Scatter) => {
                if self.rank == self.root {
                    self.total()
                } else {
                    0
                }
            }
            Some(AllToAll) => self.send_counts().iter().sum(),
            _ => self.count,
        }
    }

    fn output_len(&self) -> usize {
        use CollectiveKind::{AllGather, AllToAll, Barrier, Gather, Reduce, ReduceScatter, Scatter};
        let at_root = |len| if self.rank == self.root { len } else { 0 };
        match self.operation.kind() {
            Some(Barrier) => 0,
            Some(ReduceScatter | Scatter) => self.block(self.rank),
            Some(AllGather) => self.total(),
            Some(Gather) => at_root(self.total()),
            Some(Reduce) => at_root(self.count),
            Some(AllToAll) => self.recv_counts().iter().sum(),
            _ => self.count,
        }
    }

    fn in_place_len(&self) -> usize {
        match self.operation.ranked() {
            true => self.total(),
            false => self.count,
        }
    }

    fn counts(&self) -> Vec<usize> {
        (0..self.size).map(|rank| self.block(rank)).collect()
    }

    fn send_counts(&self) -> Vec<usize> {
        (0..self.size).map(|to| self.edge(self.rank, to)).collect()
    }

    fn recv_counts(&self) -> Vec<usize> {
        (0..self.size).map(|from| self.edge(from, self.rank)).collect()
    }

    /// The part of an in-place buffer that a rank fills.
    fn own(&self) -> Range<usize> {
        match self.operation.kind() {
            Some(CollectiveKind::AllGather) => {
                let start = self.start(self.rank);
                start..start + self.block(self.rank)
            }
            Some(CollectiveKind::Broadcast) if self.rank != self.root => 0..0,
            _ => 0..self.in_place_len(),
        }
    }

    /// What the buffer of the result should hold, stretch by stretch.
    fn expected(&self, form: Form) -> Vec<(Range<usize>, Expected)> {
        use CollectiveKind::{
            AllGather, AllReduce, AllToAll, Barrier, Broadcast, Gather, Reduce, ReduceScatter, Scatter,
        };
        let root = self.rank == self.root;
        let whole = |expected| vec![(0..self.count, expected)];
        let Some(kind) = self.operation.kind() else {
            return whole(Expected::Of { rank: (self.rank + self.size - 1) % self.size, from: 0 });
        };
        match kind {
            Barrier => Vec::new(),
            AllReduce => whole(Expected::Reduced { from: 0 }),
            Broadcast => whole(Expected::Of { rank: self.root, from: 0 }),
            Reduce if root => whole(Expected::Reduced { from: 0 }),
            // Who is not the root keeps what it gave.
            Reduce if form == Form::InPlace => whole(Expected::Of { rank: self.rank, from: 0 }),
            ReduceScatter => {
                let from = self.start(self.rank);
                let at = if form == Form::InPlace { from } else { 0 };
                vec![(at..at + self.block(self.rank), Expected::Reduced { from })]
            }
            Scatter => {
                let from = self.start(self.rank);
                vec![(0..self.block(self.rank), Expected::Of { rank: self.root, from })]
            }
            AllGather => side_by_side(&self.counts(), |_| 0),
            Gather if root => side_by_side(&self.counts(), |_| 0),
            AllToAll => {
                side_by_side(&self.recv_counts(), |from| (0..self.rank).map(|to| self.edge(from, to)).sum())
            }
            Reduce | Gather => Vec::new(),
        }
    }
}

/// Blocks of all ranks one after the other, each from that element of its rank on.
fn side_by_side(counts: &[usize], from: impl Fn(usize) -> usize) -> Vec<(Range<usize>, Expected)> {
    let mut start = 0;
    let stretch = |(rank, count)| {
        let range = start..start + count;
        start = range.end;
        (range, Expected::Of { rank, from: from(rank) })
    };
    counts.iter().copied().enumerate().map(stretch).collect()
}

/// A length around `count`: the same, none, half, one and a half.
fn uneven(count: usize, index: usize) -> usize {
    match index % 4 {
        0 => count,
        1 => 0,
        2 => count / 2,
        _ => count + count / 2,
    }
}

/// A case with its memory.
pub(crate) struct Stage<'a, T: Value> {
    case: Case,
    form: Form,
    patterns: &'a Patterns<T>,
    input: Buffer<T>,
    output: Buffer<T>,
    counts: Counts,
}

/// Elements per rank, for the variants that take them.
struct Counts {
    blocks: Vec<usize>,
    send: Vec<usize>,
    recv: Vec<usize>,
}

impl<'a, T: Value> Stage<'a, T> {
    /// Takes the memory of one form of a case: so many elements for its input, so many for its output.
    pub(crate) fn new(
        case: Case,
        form: Form,
        patterns: &'a Patterns<T>,
        mut memory: impl FnMut(usize) -> kolo::Result<Buffer<T>>,
    ) -> kolo::Result<Self> {
        let (input, output) = match form {
            Form::OutOfPlace => (case.input_len(), case.output_len()),
            Form::InPlace => (0, case.in_place_len()),
        };
        let counts = Counts { blocks: case.counts(), send: case.send_counts(), recv: case.recv_counts() };
        Ok(Self { case, form, patterns, input: memory(input)?, output: memory(output)?, counts })
    }

    /// Writes the input anew, and rubbish where the result is to come.
    pub(crate) fn prepare(&mut self) {
        self.output.fill(T::from_bits(0xa5a5_a5a5_a5a5_a5a5));
        let own = match self.form {
            Form::OutOfPlace => &mut self.input[..],
            Form::InPlace => &mut self.output[self.case.own()],
        };
        self.patterns.fill(self.case.rank, own);
    }

    /// How many elements of the result, and of an input that should be as it was, are wrong.
    pub(crate) fn wrong(&self) -> usize {
        let kept = self.patterns.wrong(&self.input, Expected::Of { rank: self.case.rank, from: 0 });
        let stretches = self.case.expected(self.form).into_iter();
        kept + stretches.map(|(range, e)| self.patterns.wrong(&self.output[range], e)).sum::<usize>()
    }

    /// Makes the call.
    pub(crate) fn call(&mut self, communicator: &mut Communicator, op: &ReduceOp<T>) -> kolo::Result<()> {
        match self.form {
            Form::OutOfPlace if self.case.uneven => self.call_uneven(communicator, op),
            Form::OutOfPlace => self.call_out_of_place(communicator, op),
            Form::InPlace => self.call_in_place(communicator, op),
        }
    }

    fn call_out_of_place(&mut self, communicator: &mut Communicator, op: &ReduceOp<T>) -> kolo::Result<()> {
        use CollectiveKind::{
            AllGather, AllReduce, AllToAll, Barrier, Broadcast, Gather, Reduce, ReduceScatter, Scatter,
        };
        let Self { case: Case { operation, root, rank, size, .. }, input, output, .. } = self;
        let root = *root;
        let Some(kind) = operation.kind() else {
            return communicator.send_recv(input, (*rank + 1) % *size, output, (*rank + *size - 1) % *size);
        };
        match kind {
            AllReduce => communicator.all_reduce(input, output, op.clone()),
            ReduceScatter => communicator.reduce_scatter(input, output, op.clone()),
            AllGather => communicator.all_gather(input, output),
            Broadcast => communicator.broadcast(output, root),
            Reduce => communicator.reduce(input, output, op.clone(), root),
            Gather => communicator.gather(input, output, root),
            Scatter => communicator.scatter(input, output, root),
            AllToAll => communicator.all_to_all(input, output),
            Barrier => communicator.barrier(),
        }
    }

    fn call_uneven(&mut self, communicator: &mut Communicator, op: &ReduceOp<T>) -> kolo::Result<()> {
        use CollectiveKind::{AllGather, AllToAll, Gather, ReduceScatter, Scatter};
        let Self { case, input, output, counts: Counts { blocks, send, recv }, .. } = self;
        match case.operation.kind() {
            Some(ReduceScatter) => communicator.reduce_scatter_v(input, output, blocks, op.clone()),
            Some(AllGather) => communicator.all_gather_v(input, output, blocks),
            Some(Gather) => communicator.gather_v(input, output, blocks, case.root),
            Some(Scatter) => communicator.scatter_v(input, blocks, output, case.root),
            Some(AllToAll) => communicator.all_to_all_v(input, send, output, recv),
            _ => self.call_out_of_place(communicator, op),
        }
    }

    fn call_in_place(&mut self, communicator: &mut Communicator, op: &ReduceOp<T>) -> kolo::Result<()> {
        use CollectiveKind::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
        let Self { case, output: data, .. } = self;
        match case.operation.kind() {
            Some(AllReduce) => communicator.all_reduce_in_place(data, op.clone()),
            Some(ReduceScatter) => communicator.reduce_scatter_in_place(data, op.clone()),
            Some(AllGather) => communicator.all_gather_in_place(data),
            Some(Broadcast) => communicator.broadcast(data, case.root),
            Some(Reduce) => communicator.reduce_in_place(data, op.clone(), case.root),
            _ => self.call_out_of_place(communicator, op),
        }
    }
}
