//! Who is left of a communicator, agreed upon by those who are.
//!
//! Each rank has a stage that all others may read at its door, whatever it does. The lowest rank that is not dead
//! decides; the others leave it to that one, for as long as they do not find it dead:
//!
//! ```text
//!              rank 0          rank 1            rank 2            rank 3
//!   at first   left to 0       left to 0         left to 0         out: it has not heard of it
//!   0 dies     †               sees it           left to 0         left to 0
//!                              left to 1         sees it, left to 1, as 3 does
//!   1 reads    that 2 and 3 have left it to 1: so neither can take a decision of 0's any more
//!                              decided: 1 2 3    reads that of 1: decided, too
//! ```
//!
//! Who decides waits until each other rank has left it to this one, or is dead, or has decided: that decision it takes
//! over. A rank reads one other at a time, and does not go back. So whoever decides or takes over, whatever
//! dies when, all that live decide alike: the tests try every order of every step of four ranks, with any of them dying
//! anywhere. Who dies after it has been counted is counted; the new communicator then loses it in its first call.
//!
//! A rank is dead when nobody listens at its door any more. One whose host does not answer for `KOLO_KEEPALIVE` is taken
//! for dead, though it may live and think the same of this one: then only more than half of those that are not known to be
//! dead go on, or a half with the lowest of them. (Reliable detectors of crashes make this easy; consensus without them:
//! Chandra and Toueg, 1996. MPI's User Level Failure Mitigation has the same call.)

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Communicator;
use super::context::Context;
use super::core::Group;
use crate::engine::mix;
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Stage, Standing};

/// What a shrunk communicator's number is made of.
const SHRUNK: u64 = u64::from_be_bytes(*b"kolo/shr");
/// How long one rank may take to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// How many ranks an error names.
const NAMED: usize = 8;
/// The pauses between two looks at all who have not answered yet: each twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// What a rank sees of another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Seen {
    Dead,
    /// It is taken for dead.
    Silent,
    At(Stage),
}

/// One rank's part. Pure: it is told what is seen and says how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    me: u32,
    members: Vec<u32>,
    dead: BTreeSet<u32>,
    /// Those that are taken for dead.
    silent: BTreeSet<u32>,
    /// Those that have left it to this rank.
    counted: BTreeSet<u32>,
    stage: Stage,
}

impl Part {
    fn new(me: u32, members: Vec<u32>) -> Self {
        let stage = Stage::Left(members.iter().copied().min().unwrap_or(me));
        let [dead, silent, counted] = Default::default();
        let mut part = Self { me, members, dead, silent, counted, stage };
        part.conclude();
        part
    }

    /// The ranks to look at: the one to which it is left, or all that have not left it to this one.
    fn looks_at(&self) -> Vec<u32> {
        match self.stage {
            Stage::Left(to) if to != self.me => vec![to],
            Stage::Left(_) => self.missing().collect(),
            _ => Vec::new(),
        }
    }

    fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        let known = |rank: &u32| *rank == self.me || self.is_gone(rank) || self.counted.contains(rank);
        self.members.iter().copied().filter(move |rank| !known(rank))
    }

    fn is_gone(&self, rank: &u32) -> bool {
        self.dead.contains(rank) || self.silent.contains(rank)
    }

    fn see(&mut self, rank: u32, seen: &Seen) {
        match (&self.stage, seen) {
            (Stage::Decided(_) | Stage::Out, _) => return,
            (_, Seen::At(Stage::Decided(left))) => self.stage = Stage::Decided(left.clone()),
            (&Stage::Left(to), Seen::Dead | Seen::Silent) => {
                let gone = if *seen == Seen::Dead { &mut self.dead } else { &mut self.silent };
                gone.insert(rank);
                if to == rank {
                    let next = self.members.iter().copied().filter(|rank| !self.is_gone(rank)).min();
                    self.stage = Stage::Left(next.unwrap_or(self.me));
                }
            }
            (Stage::Left(to), Seen::At(Stage::Left(theirs))) => {
                if *to == self.me && *theirs == self.me {
                    self.counted.insert(rank);
                }
            }
            (Stage::Left(_), Seen::At(Stage::Out)) => {}
        }
        self.conclude();
    }

    /// Decides, if it is this rank's turn and nobody is missing.
    fn conclude(&mut self) {
        if self.stage == Stage::Left(self.me) && self.missing().next().is_none() {
            let counts = |rank: &u32| *rank == self.me || self.counted.contains(rank);
            let mut left: Vec<u32> = self.members.iter().copied().filter(counts).collect();
            left.sort_unstable();
            self.stage = Stage::Decided(if self.may_go_on(&left) { left } else { Vec::new() });
        }
    }

    /// Whether no others can do the same: of those that are not dead for sure, these are most, or a half with the lowest.
    fn may_go_on(&self, left: &[u32]) -> bool {
        let voters: Vec<u32> =
            self.members.iter().copied().filter(|rank| !self.dead.contains(rank)).collect();
        let lowest = |ranks: &[u32]| ranks.iter().copied().min();
        match (2 * left.len()).cmp(&voters.len()) {
            Ordering::Greater => true,
            Ordering::Equal => lowest(left) == lowest(&voters),
            Ordering::Less => false,
        }
    }
}

impl Communicator {
    /// A communicator of those ranks that are left of this one, in the same order, with its settings: after a rank was
    /// lost, the way to go on. All that are left call it; this communicator is failed from then on, if it was not
    /// before, so that who still waits for others in a call hears of it.
    ///
    /// # Errors
    /// `Deadline` names ranks that live and have not called it. `PeerLost` where hosts are silent without being
    /// known to be dead, and those that are left are no majority of the others: they may go on themselves. `Usage`
    /// where it was shrunk before.
    pub fn shrink(&mut self) -> Result<Self> {
        let rank = self.group.rank;
        let (me, members, id) = (self.group.members[rank], self.group.members.clone(), self.group.id);
        let core = self.core();
        if core.standing().stage() != Stage::Out {
            return Err(Error::usage("this communicator was shrunk before: use the one that came of it"));
        }
        core.retire();
        let settings = core.settings().clone();
        let (standing, deadline) = (core.standing().clone(), Deadline::after(settings.deadline));
        let blame = |error: Error| error.at(rank).during("shrink");
        let left = agree(&self.context, id, standing, (me, members), &deadline).map_err(blame)?;
        let taken = |rank: &usize| left.contains(&self.group.members[*rank]);
        let ranks: Vec<usize> = (0..self.size()).filter(taken).collect();
        if !ranks.contains(&rank) {
            let text = match ranks.is_empty() {
                true => {
                    "too few ranks answer: those on hosts that are silent may be more, and go on themselves"
                }
                false => "the others took this rank for lost, and have gone on without it",
            };
            return Err(blame(Error::new(Kind::PeerLost, text)));
        }
        let id = left.iter().fold(mix(id, SHRUNK), |id, rank| mix(id, u64::from(*rank)));
        // All that are left make it, though the one that it is made of is over.
        let group = Group { origin: id, ..self.group.part(id, &ranks) };
        Self::new(self.context.clone(), group, settings)
    }
}

/// Agrees with the others of `members`, of whom this is `me`, on those that are left and take part, as the job numbers
/// them; none, where those may be too few. The agreement has that number on all of them.
pub(super) fn agree(
    context: &Context,
    number: u64,
    standing: Arc<Standing>,
    (me, members): (u32, Vec<u32>),
    deadline: &Deadline,
) -> Result<Vec<u32>> {
    let mut talks = Talks { context, communicator: number, standing, silent: BTreeMap::new() };
    talks.agree(Part::new(me, members), deadline)
}

/// A part that is played: who looks, and is looked at.
struct Talks<'a> {
    context: &'a Context,
    communicator: u64,
    standing: Arc<Standing>,
    /// Who does not answer, and since when.
    silent: BTreeMap<u32, Instant>,
}

impl Talks<'_> {
    /// Those that are left, as the job numbers them.
    fn agree(&mut self, mut part: Part, deadline: &Deadline) -> Result<Vec<u32>> {
        let mut pause = FIRST_PAUSE;
        loop {
            // Before it looks on: what others read of it never goes back.
            self.standing.come_to(part.stage.clone());
            if let Stage::Decided(left) = part.stage {
                return Ok(left);
            }
            let (mut news, mut waits) = (false, Vec::new());
            for rank in part.looks_at() {
                let seen = self.look(rank);
                let before = (part.stage.clone(), part.missing().count());
                if let Some(seen) = &seen {
                    part.see(rank, seen);
                }
                news |= before.1 != part.missing().count();
                if before.0 != part.stage {
                    news = true;
                    break;
                }
                waits.push((rank, seen));
            }
            if news {
                pause = FIRST_PAUSE;
            } else if deadline.passed() {
                return Err(self.late(&part, &waits, deadline));
            } else {
                std::thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
                pause = LAST_PAUSE.min(2 * pause);
            }
        }
    }

    /// A look at another rank; nothing while it does not answer.
    fn look(&mut self, rank: u32) -> Option<Seen> {
        match self.context.stage_of(rank, self.communicator, ANSWER) {
            Ok(stage) => {
                self.silent.remove(&rank);
                Some(Seen::At(stage))
            }
            Err(error) if error.kind() == Kind::PeerLost => Some(Seen::Dead),
            Err(_) => {
                let since = *self.silent.entry(rank).or_insert_with(Instant::now);
                self.context.is_lost(rank, since.elapsed()).then_some(Seen::Silent)
            }
        }
    }

    fn late(&self, part: &Part, waits: &[(u32, Option<Seen>)], deadline: &Deadline) -> Error {
        let name = |rank: u32| part.members.iter().position(|member| *member == rank).unwrap_or_default();
        let what = |(rank, seen): &(u32, Option<Seen>)| {
            let what = match seen {
                None => "does not answer: its process is stopped, or cut off",
                Some(Seen::At(Stage::Left(_))) => "waits for others",
                Some(_) => "has not called it",
            };
            format!("rank {} {what}", name(*rank))
        };
        let waits_for: Vec<String> = waits.iter().take(NAMED).map(what).collect();
        let allowed = deadline.allowed().unwrap_or_default().as_secs_f64();
        let text = format!("no agreement within the deadline of {allowed} s: {}", waits_for.join(", "));
        let error = Error::new(Kind::Deadline, text);
        match waits.first() {
            Some((rank, _)) => error.with(name(*rank)),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A rank in the model.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Actor {
        part: Part,
        /// What it has seen and not yet made anything of.
        seen: Option<(u32, Seen)>,
        /// What others read of it.
        public: Stage,
        alive: bool,
    }

    impl Actor {
        fn look(&self) -> Seen {
            if self.alive { Seen::At(self.public.clone()) } else { Seen::Dead }
        }
    }

    /// All that can happen next: a rank begins, looks, makes something of what it saw, says it, or dies.
    fn next(world: &[Actor], deaths: usize) -> Vec<Vec<Actor>> {
        let mut all = Vec::new();
        let mut push = |rank: usize, change: &dyn Fn(&mut Actor)| {
            let mut other = world.to_vec();
            change(&mut other[rank]);
            all.push(other);
        };
        let dead = world.iter().filter(|actor| !actor.alive).count();
        for (rank, Actor { part, seen, public, .. }) in
            world.iter().enumerate().filter(|(_, actor)| actor.alive)
        {
            if dead < deaths {
                push(rank, &|actor| actor.alive = false);
            }
            if *public != part.stage {
                // What it has concluded is said before it looks again.
                push(rank, &|actor| actor.public = actor.part.stage.clone());
            } else if let Some((other, what)) = seen {
                push(rank, &|actor| {
                    actor.part.see(*other, what);
                    actor.seen = None;
                });
            } else {
                for other in part.looks_at() {
                    let (what, mut after) = (world[other as usize].look(), part.clone());
                    after.see(other, &what);
                    // A look that changes nothing is as good as none.
                    if after != *part {
                        push(rank, &|actor| actor.seen = Some((other, what.clone())));
                    }
                }
            }
        }
        all
    }

    /// Every order of every step of so many ranks, of whom so many die anywhere.
    fn explore(ranks: u32, deaths: usize) -> usize {
        let part = |rank| Part::new(rank, (0..ranks).collect());
        let actor = |rank| Actor { part: part(rank), seen: None, public: Stage::Out, alive: true };
        let mut open: Vec<Vec<Actor>> = vec![(0..ranks).map(actor).collect()];
        let mut known = HashSet::new();
        while let Some(world) = open.pop() {
            if !known.insert(world.clone()) {
                continue;
            }
            let living: Vec<&Actor> = world.iter().filter(|actor| actor.alive).collect();
            let said = living.iter().filter_map(|actor| match &actor.public {
                Stage::Decided(left) => Some(left),
                _ => None,
            });
            let said: Vec<&Vec<u32>> = said.collect();
            assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "two decisions: {world:?}");
            if let Some(left) = said.first() {
                let counted = living.iter().all(|actor| left.contains(&actor.part.me));
                assert!(counted, "without one that lives: {world:?}");
            }
            // Deaths do not count as going on.
            if next(&world, 0).is_empty() {
                assert_eq!(said.len(), living.len(), "somebody waits for ever: {world:?}");
            }
            open.extend(next(&world, deaths));
        }
        known.len()
    }

    #[test]
    fn whoever_dies_when_all_others_decide_alike() {
        for (ranks, deaths) in [(1, 0), (2, 2), (3, 3), (4, 4)] {
            println!("{ranks} ranks, {deaths} deaths: {} states", explore(ranks, deaths));
        }
    }

    #[test]
    fn where_some_are_only_silent_the_greater_part_goes_on() {
        let decide = |me: u32, size: u32, silent: &[u32], dead: &[u32]| {
            let mut part = Part::new(me, (0..size).collect());
            silent.iter().for_each(|rank| part.see(*rank, &Seen::Silent));
            dead.iter().for_each(|rank| part.see(*rank, &Seen::Dead));
            let missing: Vec<u32> = part.missing().collect();
            missing.into_iter().for_each(|rank| part.see(rank, &Seen::At(Stage::Left(me))));
            part.stage
        };
        assert_eq!(decide(2, 5, &[0, 1], &[]), Stage::Decided(vec![2, 3, 4]));
        assert_eq!(decide(0, 5, &[2, 3, 4], &[]), Stage::Decided(vec![]));
        assert_eq!(decide(0, 4, &[2, 3], &[]), Stage::Decided(vec![0, 1]), "a half with the lowest");
        assert_eq!(decide(2, 4, &[0, 1], &[]), Stage::Decided(vec![]));
        // Who is dead for sure does not vote.
        assert_eq!(decide(2, 4, &[1], &[0]), Stage::Decided(vec![2, 3]));
        assert_eq!(decide(1, 2, &[], &[0]), Stage::Decided(vec![1]));
    }
}
