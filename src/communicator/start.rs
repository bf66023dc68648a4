//! Non-blocking calls on memory that they own; on borrowed memory, see `scope`.

use super::Communicator;
use super::ask::Ask;
use super::work::{Held, Work, task};
use crate::dtype::Element;
use crate::error::Result;
use crate::memory::Buffer;
use crate::op::ReduceOp;

/// A work's memory where input and output are apart.
type Pair<T> = (Buffer<T>, Buffer<T>);

/// Non-blocking calls. Each takes the memory that it works on and gives it back by [`Work::wait`]; see
/// the blocking call of the same name for lengths and meaning. One progress thread runs them, in the order
/// in which they were started; a blocking call waits until they are done.
impl Communicator {
    /// See [`Communicator::all_reduce_in_place`].
    pub fn start_all_reduce<T: Element>(
        &mut self,
        data: Buffer<T>,
        op: ReduceOp<T>,
    ) -> Result<Work<Buffer<T>>> {
        let ask = Ask::all_reduce(self.place(), data.len(), data.len(), &op)?;
        self.start(ask, data)
    }

    /// See [`Communicator::reduce_scatter`].
    pub fn start_reduce_scatter<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        op: ReduceOp<T>,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::reduce_scatter(self.place(), input.len(), output.len(), &op)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::reduce_scatter_v`].
    pub fn start_reduce_scatter_v<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        counts: &[usize],
        op: ReduceOp<T>,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::reduce_scatter_v(self.place(), input.len(), output.len(), counts, &op)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::all_gather`].
    pub fn start_all_gather<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::all_gather::<T>(self.place(), input.len(), output.len())?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::all_gather_v`].
    pub fn start_all_gather_v<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        counts: &[usize],
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::all_gather_v::<T>(self.place(), input.len(), output.len(), counts)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::broadcast`].
    pub fn start_broadcast<T: Element>(&mut self, data: Buffer<T>, root: usize) -> Result<Work<Buffer<T>>> {
        let ask = Ask::broadcast::<T>(self.place(), data.len(), root)?;
        self.start(ask, data)
    }

    /// See [`Communicator::reduce`].
    pub fn start_reduce<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        op: ReduceOp<T>,
        root: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::reduce(self.place(), input.len(), output.len(), &op, root)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::gather`].
    pub fn start_gather<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        root: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::gather::<T>(self.place(), input.len(), output.len(), root)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::gather_v`].
    pub fn start_gather_v<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        counts: &[usize],
        root: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::gather_v::<T>(self.place(), input.len(), output.len(), counts, root)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::scatter`].
    pub fn start_scatter<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
        root: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::scatter::<T>(self.place(), input.len(), output.len(), root)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::scatter_v`].
    pub fn start_scatter_v<T: Element>(
        &mut self,
        input: Buffer<T>,
        counts: &[usize],
        output: Buffer<T>,
        root: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::scatter_v::<T>(self.place(), input.len(), counts, output.len(), root)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::all_to_all`].
    pub fn start_all_to_all<T: Element>(
        &mut self,
        input: Buffer<T>,
        output: Buffer<T>,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::all_to_all::<T>(self.place(), input.len(), output.len())?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::all_to_all_v`].
    pub fn start_all_to_all_v<T: Element>(
        &mut self,
        input: Buffer<T>,
        send_counts: &[usize],
        output: Buffer<T>,
        recv_counts: &[usize],
    ) -> Result<Work<Pair<T>>> {
        let place = self.place();
        let ask = Ask::all_to_all_v::<T>(place, input.len(), send_counts, output.len(), recv_counts)?;
        self.start(ask, (input, output))
    }

    /// See [`Communicator::barrier`].
    pub fn start_barrier(&mut self) -> Result<Work<()>> {
        self.start(Ask::barrier(), ())
    }

    /// See [`Communicator::send`].
    pub fn start_send<T: Element>(&mut self, data: Buffer<T>, to: usize) -> Result<Work<Buffer<T>>> {
        let ask = Ask::message::<T>(self.place(), Some(to), data.len(), None, 0)?;
        self.start(ask, data)
    }

    /// See [`Communicator::recv`].
    pub fn start_recv<T: Element>(&mut self, data: Buffer<T>, from: usize) -> Result<Work<Buffer<T>>> {
        let ask = Ask::message::<T>(self.place(), None, 0, Some(from), data.len())?;
        self.start(ask, data)
    }

    /// See [`Communicator::send_recv`].
    pub fn start_send_recv<T: Element>(
        &mut self,
        data: Buffer<T>,
        to: usize,
        into: Buffer<T>,
        from: usize,
    ) -> Result<Work<Pair<T>>> {
        let ask = Ask::message::<T>(self.place(), Some(to), data.len(), Some(from), into.len())?;
        self.start(ask, (data, into))
    }

    pub(super) fn start<R: Held>(&mut self, ask: Ask, held: R) -> Result<Work<R>> {
        let (task, work) = task(ask, held);
        if let Err(error) = self.context.progress() {
            // Peers must not wait for a call that has not begun here.
            return Err(self.core().refuse(&task.ask, error));
        }
        self.queue.push(&mut self.core, task, self.context.progress()?);
        Ok(work)
    }
}
