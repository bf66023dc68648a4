//! What a machine may refuse a rank: descriptors, system calls, folders, memory. Either all results are right, or each
//! rank gets one line that says what is wrong, with whom, and what to do; nobody hangs and nothing is left behind. Each
//! rank is this program again, as [`rank`].

#[path = "../support/cgroup.rs"]
mod cgroup;
#[path = "../support/child.rs"]
mod child;
mod descriptors;
mod folders;
mod job;
mod memory;
mod refusals;

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::path::Path;

use child::{say, wait_for_a_word};
use job::{CGROUP, END, TROUBLE, WHO};
use kolo::{Communicator, Error, Kind, ReduceOp, Result};

/// Elements of the sums: one message, several, many rounds.
const COUNTS: [usize; 3] = [2, 5_000, 300_000];

/// Not a test: what each rank does. It says what became of it, waits for a word, lets go of all that it has, and says how
/// many descriptors and files are left then.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let trouble = Trouble::own();
    let before = descriptors::open();
    let mut held = Vec::new();
    match live(&trouble, &mut held) {
        Ok(()) => say("told nothing"),
        Err(error) => say(&format!("told {:?} {:?}: {error}", error.kind(), error.peer())),
    }
    wait_for_a_word();
    drop((held, trouble.fillers.take()));
    descriptors::allow_all();
    let files = if trouble.covered.get() { folders::strays() } else { 0 };
    say(&format!("left {}", descriptors::left(before) + files));
}

/// All that a job does with the system: it meets, sums, shares memory, splits (all into one part), and works in the
/// background.
fn live(trouble: &Trouble, held: &mut Vec<Communicator>) -> Result<()> {
    trouble.strike("start")?;
    held.push(Communicator::from_env()?);
    trouble.strike("links")?;
    sums(&mut held[0])?;
    trouble.strike("alloc")?;
    let mut shared = held[0].alloc::<u64>(COUNTS[2])?;
    sum(&mut held[0], &mut shared)?;
    trouble.strike("split")?;
    let rank = held[0].rank();
    let again = held[0].duplicate()?;
    held.push(again);
    sums(&mut held[1])?;
    held[1].start_barrier()?.wait()?;
    match std::env::var_os(END) {
        None => Ok(()),
        // Each with a number of its own.
        Some(_) => held[0].all_reduce_in_place(&mut vec![0u64; rank + 1], ReduceOp::Sum),
    }
}

fn sums(ranks: &mut Communicator) -> Result<()> {
    COUNTS.iter().try_for_each(|&count| sum(ranks, &mut vec![0; count]))
}

/// Adds up all ranks' numbers from 1 on, in every element.
fn sum(ranks: &mut Communicator, data: &mut [u64]) -> Result<()> {
    let size = ranks.size() as u64;
    data.fill(ranks.rank() as u64 + 1);
    ranks.all_reduce_in_place(data, ReduceOp::Sum)?;
    match data.iter().all(|element| *element == size * (size + 1) / 2) {
        true => Ok(()),
        false => Err(Error::new(Kind::Usage, "WRONG: another sum")),
    }
}

/// What happens to this rank, when, and how: `links descriptors 3`.
#[derive(Default)]
struct Trouble {
    own: Option<(String, String, String)>,
    /// Descriptors for nothing.
    fillers: RefCell<Vec<OwnedFd>>,
    /// Whether it has folders of its own.
    covered: Cell<bool>,
}

impl Trouble {
    fn own() -> Self {
        let (who, rank) = (std::env::var(WHO).unwrap_or_default(), std::env::var("KOLO_RANK"));
        if who != "all" && Ok(who) != rank {
            return Self::default();
        }
        let text = std::env::var(TROUBLE).expect("a test says what happens");
        let mut words = text.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().expect("when, what and how");
        Self { own: Some((word(), word(), word())), ..Self::default() }
    }

    /// Lets it happen, if this is when.
    fn strike(&self, now: &str) -> Result<()> {
        let Some((when, what, how)) = &self.own else { return Ok(()) };
        if now == "start"
            && let Some(cgroup) = std::env::var_os(CGROUP)
        {
            memory::enter(Path::new(&cgroup));
        }
        if when != now {
            return Ok(());
        }
        match what.as_str() {
            "descriptors" => _ = self.fillers.replace(descriptors::leave(how.parse().expect("a number"))),
            "refusal" => refusals::refuse(how),
            "folders" => self.covered.set(folders::cover(how).map(|()| true)?),
            "memory" => memory::take(how),
            other => panic!("{other}: no such trouble"),
        }
        Ok(())
    }
}
