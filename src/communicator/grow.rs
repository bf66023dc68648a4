//! Newcomers, taken into a new generation of a job.
//!
//! ```text
//!              rank 0              rank 1              newcomer
//!   grow(1)    opens the gate      -                   knocks (KOLO_JOIN=1)
//!              all-gather: how many newcomers, and where the gate is
//!              lets all in         comes               comes
//!              gives seats         rank 1 of 3         rank 2 of 3
//!              they meet as a job does that starts: a secret of their own, doors, cards, the network's pace
//!              each looks at the others' new doors, and all agree on who is there
//! ```
//!
//! The new generation shares nothing with the old one: it has its own doors, links and secret, so that what is left of an
//! earlier one cannot enter. Until the end nothing is changed; so whatever fails, the old communicator is as it was. That
//! all are in or none is agreed upon as `shrink` agrees on who is left (see there): a rank that gave up has closed its new
//! door, and counts as dead behind it. Who is there is then the same for all that live, and everybody is or the job has
//! not grown.
//!
//! MPI has `MPI_Comm_spawn` and `MPI_Intercomm_merge` for it, to be used after ULFM's shrink and agree (Bland, Bouteiller,
//! Herault, Bosilca, Dongarra: Post-failure recovery of MPI communication capability, 2013); NCCL has `ncclCommGrow`.

use std::sync::atomic::Ordering;

use super::Communicator;
use super::shrink::agree;
use crate::bootstrap::{self, Gate, Growth};
use crate::config::{Config, MOST_RANKS};
use crate::engine::{aborted, mix};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// What the number of an attempt is made of, and that of the agreement on it.
const ATTEMPT: u64 = u64::from_be_bytes(*b"kolo/att");
const ENTRY: u64 = u64::from_be_bytes(*b"kolo/ent");
/// The gate's place where there is none.
const NONE: u64 = u64::MAX;
/// The most bytes of rank 0's words on why there is none.
const WORDS: usize = 400;

impl Communicator {
    /// A communicator of these ranks and so many newcomers, which are processes that joined with `KOLO_JOIN=1`; `kolo run
    /// --restart` starts one in place of each rank that dies. All ranks call it. They keep their order and come first;
    /// newcomers are `size()` and up, in the order in which they came.
    ///
    /// Newcomers are met where `KOLO_RENDEZVOUS` says: rank 0 must be able to listen at one of the places that it lists.
    /// Newcomers know the environment alone: so the new communicator begins with the settings that it says
    /// (`KOLO_ALGORITHM` and its like), and with this one's deadline. It has its own links, and this one is as it was,
    /// for its own ranks; where `KOLO_PORT` limits the ports, it takes one more for each rank as long as both are there.
    ///
    /// # Errors
    /// All ranks get one, or none does, and this communicator stays usable: `Deadline` where too few newcomers came,
    /// or ranks that live have not called it; `PeerLost` where somebody died or left meanwhile, also a newcomer
    /// (if it was a rank, this communicator is to be shrunk); `Mismatch` where ranks expect different numbers or a newcomer
    /// has other settings, `System` where rank 0 cannot listen, `Usage` where nothing says where newcomers are met. While
    /// it waits for others it hears of an [`Abort`](crate::Abort).
    pub fn grow(&mut self, newcomers: usize) -> Result<Self> {
        let rank = self.rank();
        self.take_in(newcomers).map_err(|error| error.at(rank).during("grow"))
    }

    /// How often the job had grown when this communicator's ranks met: 0 for those that started together. A newcomer
    /// sees by it that the others are ahead and have to tell it how far.
    pub fn generation(&self) -> u32 {
        self.context.generation()
    }

    fn take_in(&mut self, newcomers: usize) -> Result<Self> {
        let (rank, members) = (self.rank(), self.size());
        if newcomers == 0 || newcomers > MOST_RANKS - members {
            let most = MOST_RANKS - members;
            return Err(Error::usage(format!("{newcomers} newcomers: expected 1 to {most}")));
        }
        let allowed = self.core().settings().deadline;
        let config = Config { deadline: allowed, ..self.context.config().clone() };
        if config.rendezvous.is_empty() {
            let text =
                "KOLO_RENDEZVOUS is not set: give every rank, and newcomers, the place at which they meet";
            return Err(Error::usage(text));
        }
        let gate = (rank == 0).then(|| Gate::open(&config));
        let place = self.compare(newcomers, &gate)?;
        let gate = gate.and_then(Result::ok).ok_or(place);

        let (number, communicator) = (self.core().child_id(ATTEMPT), self.group.id);
        let may_come =
            |member: usize| match self.context.has_left(self.group.members[member], communicator)? {
                None => Ok(()),
                Some(why) => Err(Error::new(Kind::PeerLost, format!("rank {member} does not come: {why}"))),
            };
        let goes_on = || match self.abort.load(Ordering::Relaxed) {
            true => Err(aborted()),
            false => Ok(()),
        };
        let (generation, may_come, goes_on) = (self.generation() + 1, &may_come, &goes_on);
        let growth = Growth { rank, members, newcomers, number, generation, may_come, goes_on };
        let deadline = Deadline::after(allowed);
        let mut bootstrap = bootstrap::grow(&config, &growth, gate, deadline)?;
        Self::meet(&mut *bootstrap, &config, deadline)
    }

    /// Compares how many newcomers all ranks expect; where rank 0 has opened the gate, or on all of them why it could not.
    fn compare(&mut self, newcomers: usize, gate: &Option<Result<Gate>>) -> Result<usize> {
        let place = match gate {
            Some(Ok(gate)) => gate.place() as u64,
            _ => NONE,
        };
        let mine = [newcomers as u64, place];
        let mut all = vec![0; 2 * self.size()];
        self.all_gather(&mine, &mut all)?;
        let expected = all.iter().step_by(2);
        if let Some((other, theirs)) = expected.enumerate().find(|(_, theirs)| **theirs != mine[0]) {
            let text = format!("this rank expects {newcomers} newcomers, rank {other} {theirs}");
            return Err(Error::new(Kind::Mismatch, text).with(other));
        }
        if all[1] != NONE {
            return Ok(all[1] as usize);
        }
        let mut words = [0; WORDS];
        if let Some(Err(error)) = gate {
            let said = error.to_string();
            let len = said.len().min(WORDS);
            words[..len].copy_from_slice(&said.as_bytes()[..len]);
        }
        self.broadcast(&mut words, 0)?;
        let words = String::from_utf8_lossy(&words);
        Err(Error::new(Kind::System, words.trim_end_matches('\0')))
    }

    /// Whether all ranks of a new generation are in it, or none; ranks that start together do not ask.
    pub(super) fn all_or_none(&self, deadline: &Deadline) -> Result<()> {
        match self.generation() {
            0 => Ok(()),
            _ => self.agree_on_all(deadline),
        }
    }

    fn agree_on_all(&self, deadline: &Deadline) -> Result<()> {
        let number = mix(self.group.id, ENTRY);
        let members = self.group.members.clone();
        let me = self.group.rank as u32;
        let standing = self.context.enter(number, &members);
        let there = agree(&self.context, number, standing, (me, members), deadline)?;
        match self.group.members.iter().position(|member| !there.contains(member)) {
            None => Ok(()),
            Some(rank) => {
                let text = format!("rank {rank} left before all were in");
                Err(Error::new(Kind::PeerLost, text).with(rank))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;

    /// One that closed its door before it took part is missed by all, whoever is asked first.
    #[test]
    fn all_are_in_or_none_is() {
        for missing in [None, Some(0), Some(2)] {
            let ranks = Communicator::local(3).expect("threads can be had");
            let deadline = Deadline::after(Some(Duration::from_secs(60)));
            let agreed_by_all = &Barrier::new(3 - missing.iter().count());
            std::thread::scope(|scope| {
                for rank in ranks {
                    scope.spawn(move || {
                        if missing == Some(rank.rank()) {
                            return; // and drops its communicator
                        }
                        let agreed = rank.agree_on_all(&deadline);
                        // Who goes before the others have heard of it would count as lost.
                        agreed_by_all.wait();
                        let lost = agreed.err().map(|error| (error.kind(), error.peer()));
                        assert_eq!(lost, missing.map(|missing| (Kind::PeerLost, Some(missing))));
                    });
                }
            });
        }
    }
}
