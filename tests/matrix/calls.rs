//! The calls, blocking and as works.

use kolo::{Buffer, Communicator, Result, Work};

use crate::case::{Call, Case};
use crate::support::plain::Plain;

/// What a call says besides its memory.
struct Arguments {
    /// Elements for or from each rank.
    counts: Vec<usize>,
    /// For all_to_all_v: what this rank receives from each.
    received: Vec<usize>,
    root: usize,
    next: usize,
    before: usize,
}

impl Arguments {
    fn new(case: &Case, rank: usize) -> Self {
        let &Case { size, root, call, .. } = case;
        // Who is no root need not know what the root knows.
        let knows = rank == root || !matches!(call, Call::GatherV | Call::ScatterV) || case.skew[0] % 2 == 0;
        let from = if call == Call::AllToAllV { rank } else { 0 };
        let distance = if call == Call::Chain { 1 } else { root };
        Self {
            counts: (0..if knows { size } else { 0 }).map(|to| case.block(from, to)).collect(),
            received: (0..size).map(|from| case.block(from, rank)).collect(),
            root,
            next: (rank + distance) % size,
            before: (rank + size - distance) % size,
        }
    }
}

/// Makes the call and waits.
pub(crate) fn block<T: Plain>(
    c: &mut Communicator,
    case: &Case,
    input: &[T],
    output: &mut [T],
) -> Result<()> {
    let (rank, last) = (c.rank(), c.rank() + 1 == c.size());
    let op = || case.op.expect("a reduction has an operator").of::<T>(rank);
    let Arguments { counts, received, root, next, before } = Arguments::new(case, rank);
    match case.call {
        Call::AllReduce => c.all_reduce(input, output, op()),
        Call::AllReduceInPlace => c.all_reduce_in_place(output, op()),
        Call::ReduceScatter => c.reduce_scatter(input, output, op()),
        Call::ReduceScatterInPlace => c.reduce_scatter_in_place(output, op()),
        Call::ReduceScatterV => c.reduce_scatter_v(input, output, &counts, op()),
        Call::Reduce => c.reduce(input, output, op(), root),
        Call::ReduceInPlace => c.reduce_in_place(output, op(), root),
        Call::AllGather => c.all_gather(input, output),
        Call::AllGatherInPlace => c.all_gather_in_place(output),
        Call::AllGatherV => c.all_gather_v(input, output, &counts),
        Call::Broadcast => c.broadcast(output, root),
        Call::Gather => c.gather(input, output, root),
        Call::GatherV => c.gather_v(input, output, &counts, root),
        Call::Scatter => c.scatter(input, output, root),
        Call::ScatterV => c.scatter_v(input, &counts, output, root),
        Call::AllToAll => c.all_to_all(input, output),
        Call::AllToAllV => c.all_to_all_v(input, &counts, output, &received),
        Call::Barrier => c.barrier(),
        Call::SendRecv => c.send_recv(input, next, output, before),
        Call::Chain => {
            if rank > 0 {
                c.recv(output, before)?;
            }
            if last { Ok(()) } else { c.send(input, next) }
        }
    }
}

/// Waits for a work, and gives its memory back: input and output.
pub(crate) type Finish<T> = Box<dyn FnOnce() -> Result<[Buffer<T>; 2]>>;

fn both<T: Plain>(work: Work<(Buffer<T>, Buffer<T>)>) -> Finish<T> {
    Box::new(|| work.wait().map(|(input, output)| [input, output]))
}

fn one<T: Plain>(input: Buffer<T>, work: Work<Buffer<T>>) -> Finish<T> {
    Box::new(|| work.wait().map(|output| [input, output]))
}

/// Starts the call.
pub(crate) fn start<T: Plain>(
    c: &mut Communicator,
    case: &Case,
    input: Buffer<T>,
    output: Buffer<T>,
) -> Result<Finish<T>> {
    let (rank, last) = (c.rank(), c.rank() + 1 == c.size());
    let op = || case.op.expect("a reduction has an operator").of::<T>(rank);
    let Arguments { counts, received, root, next, before } = Arguments::new(case, rank);
    Ok(match case.call {
        Call::AllReduceInPlace => one(input, c.start_all_reduce(output, op())?),
        Call::ReduceScatter => both(c.start_reduce_scatter(input, output, op())?),
        Call::ReduceScatterV => both(c.start_reduce_scatter_v(input, output, &counts, op())?),
        Call::Reduce => both(c.start_reduce(input, output, op(), root)?),
        Call::AllGather => both(c.start_all_gather(input, output)?),
        Call::AllGatherV => both(c.start_all_gather_v(input, output, &counts)?),
        Call::Broadcast => one(input, c.start_broadcast(output, root)?),
        Call::Gather => both(c.start_gather(input, output, root)?),
        Call::GatherV => both(c.start_gather_v(input, output, &counts, root)?),
        Call::Scatter => both(c.start_scatter(input, output, root)?),
        Call::ScatterV => both(c.start_scatter_v(input, &counts, output, root)?),
        Call::AllToAll => both(c.start_all_to_all(input, output)?),
        Call::AllToAllV => both(c.start_all_to_all_v(input, &counts, output, &received)?),
        Call::SendRecv => both(c.start_send_recv(input, next, output, before)?),
        Call::Barrier => {
            let work = c.start_barrier()?;
            Box::new(|| work.wait().map(|()| [input, output]))
        }
        Call::Chain => {
            // The ends of the chain keep the side that they do not use.
            let (mut kept, mut sent, mut received) = ([None, None], None, None);
            match rank > 0 {
                true => received = Some(c.start_recv(output, before)?),
                false => kept[1] = Some(output),
            }
            match last {
                false => sent = Some(c.start_send(input, next)?),
                true => kept[0] = Some(input),
            }
            Box::new(|| {
                let wait = |work: Option<Work<Buffer<T>>>, kept: Option<Buffer<T>>| match work {
                    Some(work) => work.wait(),
                    None => Ok(kept.expect("what was not handed over")),
                };
                let [input, output] = kept;
                Ok([wait(sent, input)?, wait(received, output)?])
            })
        }
        call => unreachable!("there is no start for {call:?}"),
    })
}
