//! Taking newcomers in, where nobody dies in the midst of it: `replacements.rs` has that. Ranks are threads, which meet as
//! processes do.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use kolo::bootstrap::{self, Growth};
use kolo::config::Config;
use kolo::health::Deadline;
use kolo::{Communicator, Error, Kind, ReduceOp, Result};

/// What a job's ranks and newcomers have in common.
struct Job {
    place: String,
    more: Vec<(&'static str, String)>,
    size: usize,
}

impl Job {
    fn new(name: &str, size: usize, more: &[(&'static str, &str)]) -> Self {
        let place = format!("@kolo-grow-{}-{name}", std::process::id());
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { place, more, size }
    }

    fn config(&self, variables: &[(&'static str, String)]) -> Config {
        let mut all: HashMap<&str, String> =
            [("KOLO_RENDEZVOUS", self.place.clone()), ("KOLO_DEADLINE", "60".into())].into();
        all.extend(self.more.iter().chain(variables).cloned());
        Config::read(&|name| all.get(name).map(OsString::from)).expect("nothing is wrong with it")
    }

    fn rank(&self, rank: usize) -> Config {
        self.config(&[("KOLO_RANK", rank.to_string()), ("KOLO_SIZE", self.size.to_string())])
    }

    fn newcomer(&self) -> Config {
        self.config(&[("KOLO_JOIN", "1".into())])
    }

    /// Runs `f` on every rank, each a thread; what they make of it, in their order.
    fn run<T: Send>(&self, f: impl Fn(Communicator) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let f = &f;
            let rank = |rank| scope.spawn(move || f(Communicator::join(&self.rank(rank)).expect("it joins")));
            let ranks: Vec<_> = (0..self.size).map(rank).collect();
            ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
        })
    }
}

/// A newcomer, on a thread of its own.
fn come<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    job: &Job,
    f: impl FnOnce(Communicator) -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let config = job.newcomer();
    scope.spawn(move || f(Communicator::join(&config).expect("it is taken in")))
}

/// The sum of numbers that ranks are given.
fn sum(communicator: &mut Communicator, number: usize) -> Result<usize> {
    let mut data = vec![number as u64; 5000];
    communicator.all_reduce_in_place(&mut data, ReduceOp::Sum)?;
    assert!(data.iter().all(|element| *element == data[0]));
    Ok(data[0] as usize)
}

/// The sum of all ranks' numbers is right.
fn sums_up(communicator: &mut Communicator) {
    let (rank, size) = (communicator.rank(), communicator.size());
    assert_eq!(sum(communicator, rank + 1).expect("all call it"), size * (size + 1) / 2);
}

#[test]
fn newcomers_come_after_those_that_are_there() {
    for transport in ["shm", "tcp", "shm,tcp"] {
        for encrypt in ["0", "1"] {
            let job = Job::new(
                &format!("after-{}-{encrypt}", transport.len()),
                3,
                &[("KOLO_TRANSPORT", transport), ("KOLO_ENCRYPT", encrypt)],
            );
            std::thread::scope(|scope| {
                let newcomers = [(); 2].map(|()| {
                    come(scope, &job, |mut grown| {
                        assert_eq!((grown.size(), grown.generation()), (5, 1));
                        sums_up(&mut grown);
                        grown.rank()
                    })
                });
                job.run(|mut ranks| {
                    assert_eq!(ranks.generation(), 0);
                    sums_up(&mut ranks);
                    let mut grown = ranks.grow(2).expect("two come");
                    assert_eq!((grown.rank(), grown.size(), grown.generation()), (ranks.rank(), 5, 1));
                    sums_up(&mut grown);
                    sums_up(&mut ranks);
                });
                let mut came = newcomers.map(|newcomer| newcomer.join().expect("no newcomer panics"));
                came.sort_unstable();
                assert_eq!(came, [3, 4], "{transport}");
            });
        }
    }
}

/// Newcomers are ranks as all others are: those that are left take others in, even where all that met at first have gone.
#[test]
fn generation_after_generation() {
    const GENERATIONS: u32 = 4;
    /// Takes part in two more generations, each with a newcomer.
    fn live(mut ranks: Communicator, born: u32) {
        for generation in born.. {
            assert_eq!(ranks.generation(), generation);
            sums_up(&mut ranks);
            if generation == GENERATIONS || generation == born + 2 {
                return;
            }
            let mut left = match generation {
                0 | 1 => ranks,
                _ => ranks.shrink().expect("the first one has gone"),
            };
            let size = left.size();
            ranks = left.grow(1).expect("one comes");
            assert_eq!(ranks.size(), size + 1);
        }
    }
    // One rank alone meets nobody at first.
    let job = Job::new("after-each-other", 1, &[]);
    std::thread::scope(|scope| {
        for _ in 0..GENERATIONS {
            come(scope, &job, |ranks| {
                let born = ranks.generation();
                live(ranks, born);
            });
        }
        job.run(|ranks| live(ranks, 0));
    });
}

/// A launcher's listener keeps the place from all others, also where only one rank was started.
#[test]
fn newcomers_are_met_at_the_listener_that_a_launcher_gave() {
    for size in [1, 2] {
        let job = Job::new(&format!("launched-{size}"), size, &[]);
        let listener = occupy(&job.place);
        let fd = listener.as_raw_fd().to_string();
        std::thread::scope(|scope| {
            let newcomer = come(scope, &job, |mut grown| sums_up(&mut grown));
            let rank = |rank: usize| {
                let seat = [("KOLO_RANK", rank.to_string()), ("KOLO_SIZE", size.to_string())];
                let config = job.config(&[&seat[..], &[("KOLO_LISTEN_FD", fd.clone())]].concat());
                scope.spawn(move || {
                    let mut ranks = Communicator::join(&config).expect("it joins");
                    sums_up(&mut ranks.grow(1).expect("one comes"));
                })
            };
            let ranks: Vec<_> = (0..size).map(rank).collect();
            ranks.into_iter().chain([newcomer]).for_each(|rank| rank.join().expect("no rank panics"));
        });
    }
}

/// Whatever fails, it fails alike on all ranks, and they are as they were.
fn fails(job: &Job, kind: Kind, said: &str, newcomers: usize) {
    let errors = job.run(|mut ranks| {
        ranks.set_deadline(Some(Duration::from_millis(500)));
        let error = ranks.grow(newcomers).err().expect("it fails");
        ranks.set_deadline(Some(Duration::from_secs(60)));
        sums_up(&mut ranks);
        error
    });
    for (rank, error) in errors.iter().enumerate() {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().starts_with(&format!("rank {rank}: grow: {said}")), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn where_too_few_come_nobody_grows() {
    fails(&Job::new("nobody", 3, &[]), Kind::Deadline, "2 of 2 newcomers did not come within 0.5 s", 2);
    let job = Job::new("too-few", 2, &[("KOLO_DEADLINE", "2")]);
    std::thread::scope(|scope| {
        let config = job.newcomer();
        // It waits for another chance, until its own deadline.
        let newcomer = scope.spawn(move || Communicator::join(&config).err().expect("nobody takes it"));
        fails(&job, Kind::Deadline, "1 of 2 newcomers did not come within 0.5 s", 2);
        let error = newcomer.join().expect("it does not panic");
        assert_eq!(error.kind(), Kind::Deadline, "{error}");
        assert!(
            error.to_string().starts_with("no job took this newcomer in within 2 s (@kolo-grow"),
            "{error}"
        );
    });
}

/// Whoever listens there.
fn occupy(place: &str) -> UnixListener {
    let name = place.strip_prefix('@').expect("it is an abstract socket's");
    let address = SocketAddr::from_abstract_name(name).expect("it is short");
    UnixListener::bind_addr(&address).expect("nobody meets there any more")
}

#[test]
fn where_no_gate_can_be_opened_all_hear_why() {
    let job = Job::new("occupied", 3, &[]);
    let (met, occupied) = (Barrier::new(4), Barrier::new(4));
    std::thread::scope(|scope| {
        let ranks = scope.spawn(|| {
            job.run(|mut ranks| {
                met.wait();
                occupied.wait();
                let error = ranks.grow(1).err().expect("the place is taken");
                assert_eq!(error.kind(), Kind::System, "{error}");
                let said = format!("rank {}: grow: another job already meets at {}", ranks.rank(), job.place);
                assert!(error.to_string().starts_with(&said), "{error}");
                sums_up(&mut ranks);
            })
        });
        met.wait();
        let occupied_by = occupy(&job.place);
        occupied.wait();
        ranks.join().expect("no rank panics");
        drop(occupied_by);
    });
}

#[test]
fn places_that_are_named_later_serve_when_the_first_does_not() {
    let mut job = Job::new("first", 2, &[]);
    let first = job.place.clone();
    job.place = format!("{first},@kolo-grow-{}-second", std::process::id());
    let (met, occupied) = (Barrier::new(3), Barrier::new(3));
    std::thread::scope(|scope| {
        let ranks = scope.spawn(|| {
            job.run(|mut ranks| {
                met.wait();
                occupied.wait();
                sums_up(&mut ranks.grow(1).expect("one comes"));
            })
        });
        met.wait();
        // Another job starts at the first place meanwhile, and tells newcomers to come later.
        let listener = occupy(&first);
        let other = Job { place: first, more: Vec::new(), size: 2 };
        let fd = ("KOLO_LISTEN_FD", listener.as_raw_fd().to_string());
        let hub = other.config(&[("KOLO_RANK", "0".into()), ("KOLO_SIZE", "2".into()), fd]);
        let hub = scope.spawn(move || Communicator::join(&hub).map(drop));
        occupied.wait();
        come(scope, &job, |mut grown| sums_up(&mut grown)).join().expect("it is taken in");
        ranks.join().expect("no rank panics");
        Communicator::join(&other.rank(1)).expect("the other job starts at last");
        hub.join().expect("it does not panic").expect("both are there");
    });
}

/// One that waited in vain for another and has gone is not counted.
#[test]
fn where_a_newcomer_gives_up_another_takes_its_place() {
    let job = Job::new("gives-up", 2, &[]);
    std::thread::scope(|scope| {
        let ranks =
            scope.spawn(|| job.run(|mut ranks| sums_up(&mut ranks.grow(2).expect("two come at last"))));
        let soon = Deadline::after(Some(Duration::from_secs(2)));
        let error = bootstrap::join(&job.newcomer(), soon).err().expect("it is alone");
        assert_eq!(error.kind(), Kind::Deadline, "{error}");
        let newcomers = [(); 2].map(|()| come(scope, &job, |mut grown| sums_up(&mut grown)));
        newcomers.into_iter().for_each(|newcomer| newcomer.join().expect("it is taken in"));
        ranks.join().expect("no rank panics");
    });
}

/// A rank that begins to grow and leaves is not waited for until the deadline.
#[test]
fn a_rank_that_will_not_come_any_more_is_missed_at_once() {
    let job = Job::new("will-not-come", 3, &[]);
    let errors = job.run(|mut ranks| {
        if ranks.rank() == 1 {
            // What it says first when it grows by 1, and no more.
            ranks.all_gather(&[1, u64::MAX], &mut [0; 6]).expect("all say it");
            return None;
        }
        ranks.grow(1).err()
    });
    for (rank, error) in errors.into_iter().enumerate().filter_map(|(rank, error)| Some((rank, error?))) {
        assert_eq!(error.kind(), Kind::PeerLost, "{error}");
        let said = format!("rank {rank}: grow: rank 1 does not come: it ended before it connected");
        assert_eq!(error.to_string(), said);
    }
}

/// Who is aborted while it waits for newcomers waits no longer, and the others hear that it has left.
#[test]
fn an_abort_is_heard_while_newcomers_are_awaited() {
    for who in [0, 2] {
        let errors = Job::new(&format!("aborted-{who}"), 3, &[]).run(|mut ranks| {
            let rank = ranks.rank();
            let abort = ranks.abort_handle();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    if rank == who {
                        abort.abort();
                    }
                });
                ranks.grow(1).err().expect("it is aborted")
            })
        });
        for (rank, error) in errors.iter().enumerate() {
            let kind = if rank == who { Kind::Aborted } else { Kind::PeerLost };
            assert_eq!(error.kind(), kind, "{error}");
            let left = rank != who && error.to_string().contains(&format!("rank {who} left "));
            assert_eq!(left, rank != who, "{error}");
        }
    }
}

#[test]
fn different_expectations_are_told() {
    Job::new("different", 3, &[]).run(|mut ranks| {
        let expected = if ranks.rank() == 1 { 2 } else { 1 };
        let error = ranks.grow(expected).err().expect("they differ");
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        let other = if ranks.rank() == 1 { "rank 0 1" } else { "rank 1 2" };
        let said = format!("this rank expects {expected} newcomers, {other}");
        assert!(error.to_string().ends_with(&said), "{error}");
        sums_up(&mut ranks);
    });
}

#[test]
fn who_cannot_grow_is_told_why() {
    for mut ranks in Communicator::local(1).expect("one thread can be had") {
        let grow = |ranks: &mut Communicator, newcomers| ranks.grow(newcomers).err().expect("it cannot");
        for (newcomers, said) in [(0, "0 newcomers: expected 1 to "), (1, "KOLO_RENDEZVOUS is not set: ")] {
            let error = grow(&mut ranks, newcomers);
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

/// Who comes to the gate, and what it hears; meanwhile a rank waits for a newcomer.
fn at_the_gate(name: &str, come: impl FnOnce(&Job) -> Error) -> Error {
    let job = Job::new(name, 2, &[]);
    let heard = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ranks = scope.spawn(|| {
            job.run(|mut ranks| {
                let mut grown = ranks.grow(1).expect("one comes at last");
                assert_eq!(heard.load(Ordering::Relaxed), 1, "who was refused takes nobody's place");
                sums_up(&mut grown);
            })
        });
        // Until then nobody listens there, or a job that starts.
        std::thread::sleep(Duration::from_millis(500));
        let error = come(&job);
        heard.store(1, Ordering::Relaxed);
        let newcomer = scope.spawn(|| sums_up(&mut Communicator::join(&job.newcomer()).expect("it comes")));
        newcomer.join().expect("it is taken in");
        ranks.join().expect("no rank panics");
        error
    })
}

#[test]
fn who_is_of_an_earlier_generation_is_refused() {
    let soon = || Deadline::after(Some(Duration::from_secs(30)));
    let error = at_the_gate("earlier", |job| {
        let growth = Growth {
            rank: 1,
            members: 2,
            newcomers: 1,
            number: 17,
            generation: 1,
            may_come: &|_| Ok(()),
            goes_on: &|| Ok(()),
        };
        bootstrap::grow(&job.rank(1), &growth, Err(0), soon()).err().expect("it is of another attempt")
    });
    assert_eq!(error.kind(), Kind::Refused);
    let said = "rank 1 comes from an earlier generation, without which the job has gone on";
    assert_eq!(error.to_string(), said);
    let error =
        at_the_gate("too-late", |job| bootstrap::join(&job.rank(1), soon()).err().expect("it started"));
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("comes for the job's start, which is over"), "{error}");
    let error = at_the_gate("stranger", |job| {
        let mut other = job.newcomer();
        other.job = "another".into();
        Communicator::join(&other).err().expect("it is of another job")
    });
    assert_eq!(error.to_string(), "a newcomer is of another job than rank 0, whose KOLO_JOB is ``");
}

/// A newcomer that was given its seat and goes is news to all, and no harm.
#[test]
fn a_newcomer_that_leaves_in_the_midst_of_it_is_told() {
    let job = Job::new("leaves", 3, &[]);
    std::thread::scope(|scope| {
        let config = job.newcomer();
        let newcomer = scope.spawn(move || {
            let soon = Deadline::after(Some(Duration::from_secs(30)));
            let met = bootstrap::join(&config, soon).expect("it is taken in");
            (met.rank(), met.size(), met.generation())
        });
        let errors = job.run(|mut ranks| {
            let error = ranks.grow(1).err().expect("it has gone");
            sums_up(&mut ranks);
            (ranks.rank(), error)
        });
        assert_eq!(newcomer.join().expect("it does not panic"), (3, 4, 1));
        for (rank, error) in errors {
            assert_eq!(error.kind(), Kind::PeerLost, "{error}");
            let said = format!("rank {rank}: grow: rank 3 left while the ranks were meeting");
            assert_eq!(error.to_string(), said);
        }
    });
}
