//! The public object: a group of ranks that call collectives together.

mod ask;
mod choice;
mod context;
mod core;
mod cores;
mod gauge;
mod group;
mod grow;
mod progress;
mod scope;
mod shrink;
mod start;
mod trips;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use self::choice::Explanation;
pub use self::scope::Scope;
pub use self::work::{Awaited, Work};

use self::ask::{Ask, Place};
use self::choice::Settings;
use self::core::{Core, Group};
use self::progress::Queue;
use crate::dtype::Element;
use crate::error::Result;
use crate::memory::{View, as_bytes, as_bytes_mut};
use crate::op::ReduceOp;
use crate::plan::{Collective, CollectiveKind, Machine};
use crate::topology::Cost;

/// A group of ranks. All of them make the same calls in the same order.
///
/// Blocking calls run on the calling thread. Every one has a deadline (10 minutes unless
/// [`Communicator::set_deadline`] says otherwise). After any error but [`Kind::Usage`](crate::Kind::Usage)
/// the communicator is failed: each later call returns that error. Lengths are in elements; a rule that
/// one rank alone can check is a usage error, one that takes two ranks is a
/// [`Kind::Mismatch`](crate::Kind::Mismatch), found before a wrong number is handed out.
///
/// ```
/// let threads: Vec<_> = kolo::Communicator::local(2)?
///     .into_iter()
///     .map(|mut communicator| {
///         std::thread::spawn(move || {
///             let mut data = [1.0f32, communicator.rank() as f32];
///             communicator.all_reduce_in_place(&mut data, kolo::ReduceOp::Sum)?;
///             assert_eq!(data, [2.0, 1.0]);
///             Ok::<(), kolo::Error>(())
///         })
///     })
///     .collect();
/// threads.into_iter().try_for_each(|thread| thread.join().unwrap())?;
/// # Ok::<(), kolo::Error>(())
/// ```
pub struct Communicator {
    group: Group,
    context: Arc<context::Context>,
    /// With its owner, unless works are outstanding.
    core: Option<Box<Core>>,
    queue: Arc<Queue>,
    abort: Arc<AtomicBool>,
}

/// Aborts a communicator from any thread: its calls on this rank, blocked or to come, return
/// [`Kind::Aborted`](crate::Kind::Aborted); its peers learn that this rank has left.
#[derive(Clone, Debug)]
pub struct Abort(Arc<AtomicBool>);

impl Abort {
    /// Aborts; at once, and as often as one likes.
    pub fn abort(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Communicator {
    fn new(context: Arc<context::Context>, group: Group, settings: Settings) -> Result<Self> {
        let abort = Arc::new(AtomicBool::new(false));
        let core = Core::new(context.clone(), group.clone(), settings, abort.clone())?;
        Ok(Self { group, context, core: Some(Box::new(core)), queue: Arc::default(), abort })
    }

    /// This rank: 0 to `size() - 1`.
    pub fn rank(&self) -> usize {
        self.group.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.group.members.len()
    }

    /// How long calls wait for other ranks before they fail; `None` waits for ever. 10 minutes at first.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.core().settings_mut().deadline = deadline;
    }

    /// Walks that algorithm in every call of that collective, or the cheapest again (`None`). All ranks
    /// must set alike.
    pub fn set_algorithm(&mut self, kind: CollectiveKind, name: Option<&str>) -> Result<()> {
        self.core().settings_mut().force(kind, name)
    }

    /// Admits only plans that combine in rank order, so that results depend on nothing but the ranks'
    /// data. All ranks must set alike.
    pub fn set_deterministic(&mut self, deterministic: bool) {
        self.core().settings_mut().deterministic = deterministic;
    }

    /// A handle that aborts this communicator from any thread.
    pub fn abort_handle(&self) -> Abort {
        Abort(self.abort.clone())
    }

    /// What a call of `bytes` bytes in all blocks together would walk, and at what predicted price.
    pub fn explain(&mut self, collective: Collective, bytes: usize) -> Result<Explanation> {
        self.core().explain(collective, bytes)
    }

    /// What plans are priced by here: who stands where, what crossing costs between two ranks, and what a host's cores
    /// and network do. The same on all ranks; what lies between hosts was measured when the job started.
    pub fn machine(&self) -> Machine<impl Fn(usize, usize) -> Cost + use<>> {
        self.context.machine(&self.group)
    }

    #[inline(always)]
    fn place(&self) -> Place {
        Place { rank: self.group.rank, size: self.group.members.len() }
    }

    /// The core, taken back from the progress thread once every work is done.
    #[inline(always)]
    fn core(&mut self) -> &mut Core {
        let Self { core, queue, .. } = self;
        match core {
            Some(core) => core,
            None => core.insert(queue.recall()),
        }
    }

    #[inline(always)]
    fn run<T: Element>(&mut self, ask: &Ask, input: &[T], output: &mut [T]) -> Result<()> {
        self.run_views(ask, View::read(as_bytes(input)), View::write(as_bytes_mut(output)))
    }

    fn run_in_place<T: Element>(&mut self, ask: &Ask, data: &mut [T]) -> Result<()> {
        let view = View::write(as_bytes_mut(data));
        self.run_views(ask, view, view)
    }

    // Most calls are like the one before, which is seen here, where what a call asks for is still in registers.
    #[inline(always)]
    fn run_views(&mut self, ask: &Ask, input: View<'_>, output: View<'_>) -> Result<()> {
        let core = self.core();
        match core.repeats(ask) {
            true => core.run_again(ask, input, output),
            false => core.run(ask, input, output),
        }
    }
}

/// Blocking collectives.
impl Communicator {
    /// `output` = the reduction of all ranks' `input`, on every rank. As many elements on both sides.
    pub fn all_reduce<T: Element>(&mut self, input: &[T], output: &mut [T], op: ReduceOp<T>) -> Result<()> {
        let ask = Ask::all_reduce(self.place(), input.len(), output.len(), &op)?;
        self.run(&ask, input, output)
    }

    /// `data` = the reduction of all ranks' `data`.
    pub fn all_reduce_in_place<T: Element>(&mut self, data: &mut [T], op: ReduceOp<T>) -> Result<()> {
        let ask = Ask::all_reduce(self.place(), data.len(), data.len(), &op)?;
        self.run_in_place(&ask, data)
    }

    /// Block r of the reduction of all ranks' `input` goes to rank r. `input` has `size()` blocks of
    /// `output`'s length.
    pub fn reduce_scatter<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: ReduceOp<T>,
    ) -> Result<()> {
        let ask = Ask::reduce_scatter(self.place(), input.len(), output.len(), &op)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::reduce_scatter`], with blocks of `counts[r]` elements; `counts` is the same on
    /// all ranks.
    pub fn reduce_scatter_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        op: ReduceOp<T>,
    ) -> Result<()> {
        let ask = Ask::reduce_scatter_v(self.place(), input.len(), output.len(), counts, &op)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::reduce_scatter`]; the result is this rank's block of `data`, the other blocks
    /// are used up.
    pub fn reduce_scatter_in_place<T: Element>(&mut self, data: &mut [T], op: ReduceOp<T>) -> Result<()> {
        let place = self.place();
        let each = data.len() / place.size;
        let ask = Ask::reduce_scatter(place, data.len(), each, &op)?;
        let view = View::write(as_bytes_mut(data));
        let bytes = each * T::DTYPE.size();
        self.run_views(&ask, view, view.part(place.rank * bytes..(place.rank + 1) * bytes))
    }

    /// `output` = every rank's `input`, in rank order: `size()` blocks of `input`'s length.
    pub fn all_gather<T: Element>(&mut self, input: &[T], output: &mut [T]) -> Result<()> {
        let ask = Ask::all_gather::<T>(self.place(), input.len(), output.len())?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::all_gather`], with blocks of `counts[r]` elements; `counts` is the same on all
    /// ranks.
    pub fn all_gather_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
    ) -> Result<()> {
        let ask = Ask::all_gather_v::<T>(self.place(), input.len(), output.len(), counts)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::all_gather`]; this rank's input is its block of `data`.
    pub fn all_gather_in_place<T: Element>(&mut self, data: &mut [T]) -> Result<()> {
        let place = self.place();
        let each = data.len() / place.size;
        let ask = Ask::all_gather::<T>(place, each, data.len())?;
        let view = View::write(as_bytes_mut(data));
        let bytes = each * T::DTYPE.size();
        self.run_views(&ask, view.part(place.rank * bytes..(place.rank + 1) * bytes), view)
    }

    /// Every rank's `data` becomes the root's.
    pub fn broadcast<T: Element>(&mut self, data: &mut [T], root: usize) -> Result<()> {
        let ask = Ask::broadcast::<T>(self.place(), data.len(), root)?;
        self.run_in_place(&ask, data)
    }

    /// The root's `output` = the reduction of all ranks' `input`; elsewhere `output` is not used and may
    /// be empty.
    pub fn reduce<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        op: ReduceOp<T>,
        root: usize,
    ) -> Result<()> {
        let ask = Ask::reduce(self.place(), input.len(), output.len(), &op, root)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::reduce`]; the root's `data` becomes the result, the others' stay as they are.
    pub fn reduce_in_place<T: Element>(
        &mut self,
        data: &mut [T],
        op: ReduceOp<T>,
        root: usize,
    ) -> Result<()> {
        let ask = Ask::reduce(self.place(), data.len(), data.len(), &op, root)?;
        self.run_in_place(&ask, data)
    }

    /// The root's `output` = every rank's `input`, in rank order; elsewhere `output` is not used.
    pub fn gather<T: Element>(&mut self, input: &[T], output: &mut [T], root: usize) -> Result<()> {
        let ask = Ask::gather::<T>(self.place(), input.len(), output.len(), root)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::gather`], with blocks of `counts[r]` elements; `counts` matters at the root
    /// only.
    pub fn gather_v<T: Element>(
        &mut self,
        input: &[T],
        output: &mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<()> {
        let ask = Ask::gather_v::<T>(self.place(), input.len(), output.len(), counts, root)?;
        self.run(&ask, input, output)
    }

    /// Rank r's `output` = block r of the root's `input`; elsewhere `input` is not used.
    pub fn scatter<T: Element>(&mut self, input: &[T], output: &mut [T], root: usize) -> Result<()> {
        let ask = Ask::scatter::<T>(self.place(), input.len(), output.len(), root)?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::scatter`], with blocks of `counts[r]` elements; `counts` matters at the root
    /// only.
    pub fn scatter_v<T: Element>(
        &mut self,
        input: &[T],
        counts: &[usize],
        output: &mut [T],
        root: usize,
    ) -> Result<()> {
        let ask = Ask::scatter_v::<T>(self.place(), input.len(), counts, output.len(), root)?;
        self.run(&ask, input, output)
    }

    /// Block b of rank r's `output` = block r of rank b's `input`. Both have `size()` blocks.
    pub fn all_to_all<T: Element>(&mut self, input: &[T], output: &mut [T]) -> Result<()> {
        let ask = Ask::all_to_all::<T>(self.place(), input.len(), output.len())?;
        self.run(&ask, input, output)
    }

    /// Like [`Communicator::all_to_all`], with blocks of `send_counts[r]` elements for rank r and
    /// `recv_counts[r]` from it.
    pub fn all_to_all_v<T: Element>(
        &mut self,
        input: &[T],
        send_counts: &[usize],
        output: &mut [T],
        recv_counts: &[usize],
    ) -> Result<()> {
        let place = self.place();
        let ask = Ask::all_to_all_v::<T>(place, input.len(), send_counts, output.len(), recv_counts)?;
        self.run(&ask, input, output)
    }

    /// Returns when all ranks have called it.
    pub fn barrier(&mut self) -> Result<()> {
        self.run::<u8>(&Ask::barrier(), &[], &mut [])
    }
}

/// Messages between two ranks. They are matched in the order in which they are sent.
impl Communicator {
    /// Sends to a rank that receives as many elements of the same type. May wait until it does.
    pub fn send<T: Element>(&mut self, data: &[T], to: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.place(), Some(to), data.len(), None, 0)?;
        self.run(&ask, data, &mut [])
    }

    /// Receives from a rank that sends as many elements of the same type.
    pub fn recv<T: Element>(&mut self, data: &mut [T], from: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.place(), None, 0, Some(from), data.len())?;
        self.run(&ask, &[], data)
    }

    /// Both at once, so that neighbours which exchange cannot block each other.
    pub fn send_recv<T: Element>(
        &mut self,
        data: &[T],
        to: usize,
        into: &mut [T],
        from: usize,
    ) -> Result<()> {
        let ask = Ask::message::<T>(self.place(), Some(to), data.len(), Some(from), into.len())?;
        self.run(&ask, data, into)
    }
}
