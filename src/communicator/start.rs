//! Non-blocking calls: on memory that is owned ([`Communicator`]'s `start_…`), or borrowed ([`Scope`]).

use super::Communicator;
use super::ask::Ask;
use super::work::{Held, Work, task};
use crate::dtype::Element;
use crate::error::Result;
use crate::memory::{Buffer, Loan, Loans, with_loans};
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

    fn start<R: Held>(&mut self, ask: Ask, held: R) -> Result<Work<R>> {
        let (task, work) = task(ask, held);
        self.queue.push(&mut self.core, task, self.context.progress()?);
        Ok(work)
    }

    /// Starts works on borrowed slices; returns when all of them are done, with the first error if one
    /// failed.
    ///
    /// ```
    /// # let mut communicator = kolo::Communicator::local(1)?.remove(0);
    /// let (mut gradients, mut norm) = ([1.0f32; 64], [0.5f64]);
    /// communicator.scope(|scope| {
    ///     scope.all_reduce(&mut gradients, kolo::ReduceOp::Average)?;
    ///     scope.all_reduce(&mut norm, kolo::ReduceOp::Sum)?;
    ///     // ... something useful meanwhile ...
    ///     Ok(())
    /// })?;
    /// # Ok::<(), kolo::Error>(())
    /// ```
    pub fn scope<'env, R>(&mut self, f: impl FnOnce(&mut Scope<'_, 'env>) -> Result<R>) -> Result<R> {
        with_loans(|loans| {
            let mut scope = Scope { communicator: self, loans, works: Vec::new() };
            let result = f(&mut scope);
            scope.finish().and(result)
        })
    }
}

/// Starts works on slices that are borrowed until [`Communicator::scope`] returns.
pub struct Scope<'scope, 'env> {
    communicator: &'scope mut Communicator,
    loans: &'scope Loans<'env>,
    works: Vec<Outstanding>,
}

enum Outstanding {
    One(Work<Loan>),
    Two(Work<(Loan, Loan)>),
}

impl<'env> Scope<'_, 'env> {
    /// See [`Communicator::all_reduce_in_place`].
    pub fn all_reduce<T: Element>(&mut self, data: &'env mut [T], op: ReduceOp<T>) -> Result<()> {
        let ask = Ask::all_reduce(self.communicator.place(), data.len(), data.len(), &op)?;
        self.one(ask, self.loans.write(data))
    }

    /// See [`Communicator::reduce_scatter`].
    pub fn reduce_scatter<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        op: ReduceOp<T>,
    ) -> Result<()> {
        let ask = Ask::reduce_scatter(self.communicator.place(), input.len(), output.len(), &op)?;
        self.two(ask, self.loans.read(input), self.loans.write(output))
    }

    /// See [`Communicator::all_gather`].
    pub fn all_gather<T: Element>(&mut self, input: &'env [T], output: &'env mut [T]) -> Result<()> {
        let ask = Ask::all_gather::<T>(self.communicator.place(), input.len(), output.len())?;
        self.two(ask, self.loans.read(input), self.loans.write(output))
    }

    /// See [`Communicator::broadcast`].
    pub fn broadcast<T: Element>(&mut self, data: &'env mut [T], root: usize) -> Result<()> {
        let ask = Ask::broadcast::<T>(self.communicator.place(), data.len(), root)?;
        self.one(ask, self.loans.write(data))
    }

    /// See [`Communicator::all_to_all`].
    pub fn all_to_all<T: Element>(&mut self, input: &'env [T], output: &'env mut [T]) -> Result<()> {
        let ask = Ask::all_to_all::<T>(self.communicator.place(), input.len(), output.len())?;
        self.two(ask, self.loans.read(input), self.loans.write(output))
    }

    /// See [`Communicator::send`].
    pub fn send<T: Element>(&mut self, data: &'env [T], to: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.communicator.place(), Some(to), data.len(), None, 0)?;
        self.one(ask, self.loans.read(data))
    }

    /// See [`Communicator::recv`].
    pub fn recv<T: Element>(&mut self, data: &'env mut [T], from: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.communicator.place(), None, 0, Some(from), data.len())?;
        self.one(ask, self.loans.write(data))
    }

    fn one(&mut self, ask: Ask, data: Loan) -> Result<()> {
        self.works.push(Outstanding::One(self.communicator.start(ask, data)?));
        Ok(())
    }

    fn two(&mut self, ask: Ask, input: Loan, output: Loan) -> Result<()> {
        self.works.push(Outstanding::Two(self.communicator.start(ask, (input, output))?));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let outcomes = self.works.into_iter().map(|work| match work {
            Outstanding::One(work) => work.wait().map(drop),
            Outstanding::Two(work) => work.wait().map(drop),
        });
        // All are waited for, whatever became of the first.
        outcomes.fold(Ok(()), Result::and)
    }
}
