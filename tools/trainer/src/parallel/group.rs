//! A communicator whose calls are counted and timed. A group of one rank has none: its calls do nothing.

use std::time::Instant;

use kolo::{Communicator, Element, ReduceOp};

use crate::error::Result;
use crate::metrics::{Collective, Traffic};

/// The ranks along one axis of the mesh.
pub(crate) struct Group {
    communicator: Option<Communicator>,
    traffic: Traffic,
}

impl Group {
    /// The ranks of `communicator`; without one, this rank alone.
    pub(crate) fn new(communicator: Option<Communicator>) -> Self {
        Self { communicator: communicator.filter(|c| c.size() > 1), traffic: Traffic::default() }
    }

    /// What passed since the last call of this function.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Runs one call of `elements` elements of `T`, if there is anybody to talk to.
    fn call<T>(
        &mut self,
        collective: Collective,
        elements: usize,
        f: impl FnOnce(&mut Communicator) -> kolo::Result<()>,
    ) -> Result<()> {
        let Some(communicator) = &mut self.communicator else { return Ok(()) };
        let start = Instant::now();
        f(communicator)?;
        self.traffic.add(collective, (elements * size_of::<T>()) as u64, start.elapsed());
        Ok(())
    }

    /// Element by element, the sum over the group.
    pub(crate) fn sum<T: Element>(&mut self, data: &mut [T]) -> Result<()> {
        self.call::<T>(Collective::AllReduce, data.len(), |c| c.all_reduce_in_place(data, ReduceOp::Sum))
    }

    /// Element by element, the maximum over the group.
    pub(crate) fn max<T: Element>(&mut self, data: &mut [T]) -> Result<()> {
        self.call::<T>(Collective::AllReduce, data.len(), |c| c.all_reduce_in_place(data, ReduceOp::Max))
    }

    /// The group's rank 0's data, on every rank.
    pub(crate) fn broadcast<T: Element>(&mut self, data: &mut [T]) -> Result<()> {
        self.call::<T>(Collective::Broadcast, data.len(), |c| c.broadcast(data, 0))
    }

    /// Every rank's `input`, one after the other, at the group's rank 0 (elsewhere nothing); `counts` are
    /// the inputs' lengths, known to all.
    pub(crate) fn gather<T: Element + Default>(&mut self, input: &[T], counts: &[usize]) -> Result<Vec<T>> {
        let Some(rank) = self.communicator.as_ref().map(Communicator::rank) else {
            return Ok(input.to_vec());
        };
        let total: usize = if rank == 0 { counts.iter().sum() } else { 0 };
        let mut output = vec![T::default(); total];
        self.call::<T>(Collective::Gather, input.len(), |c| c.gather_v(input, &mut output, counts, 0))?;
        Ok(output)
    }

    /// Sends to rank `to`; may wait until that rank receives.
    pub(crate) fn send<T: Element>(&mut self, data: &[T], to: usize) -> Result<()> {
        self.call::<T>(Collective::Send, data.len(), |c| c.send(data, to))
    }

    /// Receives from rank `from`.
    pub(crate) fn receive<T: Element>(&mut self, data: &mut [T], from: usize) -> Result<()> {
        self.call::<T>(Collective::Receive, data.len(), |c| c.recv(data, from))
    }

    /// Sends to and receives from rank `peer`, which does the same: neither waits for the other's order.
    pub(crate) fn exchange<T: Element>(&mut self, data: &[T], into: &mut [T], peer: usize) -> Result<()> {
        let elements = data.len() + into.len();
        self.call::<T>(Collective::Exchange, elements, |c| c.send_recv(data, peer, into, peer))
    }
}
