//! One suite over every way in which ranks meet, then what each way must refuse.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kolo::bootstrap::{Bootstrap, Door, Doorway, Local, Roster, Secret, Tcp, join};
use kolo::config::Config;
use kolo::health::Deadline;
use kolo::{Error, Kind, Result};

const SECRET: &str = "a secret that only this test's ranks know";

type Opened = Result<Box<dyn Bootstrap>>;
/// How one rank comes in, on its own thread.
type Entrance = Box<dyn FnOnce() -> Opened + Send>;
/// Makes a job's entrances. What must outlive the meeting is kept in the last place.
type Job = (Vec<Entrance>, Box<dyn std::any::Any>);

/// Prepares a job of so many ranks, of which each gives up after so long.
type Way = fn(usize, Duration) -> Job;

/// Every way, by name.
fn ways() -> Vec<(&'static str, Way)> {
    vec![
        ("local", local),
        ("by hand, UNIX", unix),
        ("by hand, TCP", tcp),
        ("by hand, TCP, encrypted", encrypted),
        ("kolo run", kolo_run),
        ("pmi", pmi),
    ]
}

fn unique(what: &str) -> String {
    format!("kolo-test-{what}-{:016x}", RandomState::new().build_hasher().finish())
}

fn config(rank: usize, size: usize, more: &[(&str, String)]) -> Config {
    let mut variables: HashMap<String, String> =
        [("KOLO_RANK".into(), rank.to_string()), ("KOLO_SIZE".into(), size.to_string())].into();
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Config::read(&|name| variables.get(name).map(OsString::from)).unwrap()
}

fn entrance(config: Config, allowed: Duration) -> Entrance {
    Box::new(move || join(&config, Deadline::after(Some(allowed))))
}

fn local(size: usize, allowed: Duration) -> Job {
    let enter = |local| Box::new(move || Ok(Box::new(local) as Box<dyn Bootstrap>)) as Entrance;
    (Local::all(size, Deadline::after(Some(allowed))).into_iter().map(enter).collect(), Box::new(()))
}

fn star(size: usize, allowed: Duration, more: &[(&str, String)]) -> Vec<Entrance> {
    (0..size).map(|rank| entrance(config(rank, size, more), allowed)).collect()
}

fn unix(size: usize, allowed: Duration) -> Job {
    (star(size, allowed, &[("KOLO_RENDEZVOUS", format!("@{}", unique("hand")))]), Box::new(()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tcp(size: usize, allowed: Duration) -> Job {
    let place = format!("127.0.0.1:{}", free_port());
    (star(size, allowed, &[("KOLO_RENDEZVOUS", place), ("KOLO_SECRET", SECRET.into())]), Box::new(()))
}

fn encrypted(size: usize, allowed: Duration) -> Job {
    let place = ("KOLO_RENDEZVOUS", format!("127.0.0.1:{}", free_port()));
    let more = [place, ("KOLO_SECRET", SECRET.into()), ("KOLO_ENCRYPT", "1".into())];
    (star(size, allowed, &more), Box::new(()))
}

/// As `kolo run` does it: the listener is there before any rank.
fn kolo_run(size: usize, allowed: Duration) -> Job {
    let name = unique("run");
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let place = ("KOLO_RENDEZVOUS", format!("@{name}"));
    let fd = ("KOLO_LISTEN_FD", listener.as_raw_fd().to_string());
    let mut entrances = star(size, allowed, std::slice::from_ref(&place));
    entrances[0] = entrance(config(0, size, &[place, fd]), allowed);
    (entrances, Box::new(listener))
}

/// A launcher that speaks PMI-1, with values as short as a rank may meet.
fn pmi(size: usize, allowed: Duration) -> Job {
    let store = Arc::new(Mutex::new(HashMap::new()));
    let barrier = Arc::new(Barrier::new(size));
    let mut sockets: Vec<OwnedFd> = Vec::new();
    let mut entrances = Vec::new();
    for rank in 0..size {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (store, barrier) = (Arc::clone(&store), Arc::clone(&barrier));
        std::thread::spawn(move || serve_pmi(&ours, &store, &barrier));
        let variables = HashMap::from([
            ("PMI_RANK", rank.to_string()),
            ("PMI_SIZE", size.to_string()),
            ("PMI_FD", theirs.as_raw_fd().to_string()),
        ]);
        let config = Config::read(&|name| variables.get(name).map(OsString::from)).unwrap();
        entrances.push(entrance(config, allowed));
        sockets.push(theirs.into());
    }
    (entrances, Box::new(sockets))
}

fn serve_pmi(socket: &UnixStream, store: &Mutex<HashMap<String, String>>, barrier: &Barrier) {
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { return };
        let words: HashMap<&str, &str> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let answer = match words["cmd"] {
            "init" => "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1".into(),
            "get_maxes" => "cmd=maxes kvsname_max=64 keylen_max=64 vallen_max=20".into(),
            "get_my_kvsname" => "cmd=my_kvsname kvsname=store".into(),
            "put" => {
                assert!(words["value"].len() < 20 && words["key"].len() < 64);
                let earlier =
                    store.lock().unwrap().insert(words["key"].to_owned(), words["value"].to_owned());
                assert_eq!(earlier, None, "a key was put twice");
                "cmd=put_result rc=0 msg=success".into()
            }
            "barrier_in" => {
                barrier.wait();
                "cmd=barrier_out".into()
            }
            "get" => match store.lock().unwrap().get(words["key"]) {
                Some(value) => format!("cmd=get_result rc=0 msg=success value={value}"),
                None => "cmd=get_result rc=-1 msg=key_not_found".into(),
            },
            "finalize" => "cmd=finalize_ack".into(),
            other => panic!("{other}"),
        };
        let mut socket = socket;
        if writeln!(socket, "{answer}").is_err() {
            return;
        }
    }
}

fn start<T: Send + 'static>(
    entrances: Vec<Entrance>,
    then: impl Fn(Box<dyn Bootstrap>) -> Result<T> + Clone + Send + 'static,
) -> Vec<JoinHandle<Result<T>>> {
    let run = |entrance: Entrance| {
        let then = then.clone();
        std::thread::spawn(move || then(entrance()?))
    };
    entrances.into_iter().map(run).collect()
}

fn finish<T>(ranks: Vec<JoinHandle<Result<T>>>) -> Vec<Result<T>> {
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

fn failures<T: std::fmt::Debug>(outcomes: Vec<Result<T>>) -> Vec<Error> {
    outcomes.into_iter().map(Result::unwrap_err).collect()
}

/// What `rank` says in `round`: of very different lengths, and sometimes nothing.
fn blob(rank: usize, round: usize) -> Vec<u8> {
    let len = match round {
        0 => 32,
        1 => 0,
        2 => rank * 1000,
        3 => usize::from(rank == 1) * 20_000,
        _ => 7 + rank,
    };
    (0..len).map(|at| (at * 31 + rank * 7 + round) as u8).collect()
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn every_rank_gets_every_ranks_bytes() {
    for (name, way) in ways() {
        for size in 1..=8 {
            let (entrances, _kept) = way(size, LONG);
            let rounds = move |mut met: Box<dyn Bootstrap>| {
                assert_eq!(met.size(), size);
                let gathered: Result<Vec<_>> =
                    (0..5).map(|round| met.all_gather(&blob(met.rank(), round))).collect();
                Ok((met.rank(), gathered?))
            };
            for (rank, outcome) in finish(start(entrances, rounds)).into_iter().enumerate() {
                let (own, gathered) = outcome.unwrap_or_else(|error| panic!("{name}, {size} ranks: {error}"));
                assert_eq!(own, rank);
                for (round, all) in gathered.iter().enumerate() {
                    let expected: Vec<_> = (0..size).map(|rank| blob(rank, round)).collect();
                    assert!(*all == expected, "{name}, {size} ranks, rank {rank}, round {round}");
                }
            }
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    for (name, way) in ways() {
        for (size, absent) in [(2, 1), (4, 2), (4, 0)] {
            let (mut entrances, _kept) = way(size, SHORT);
            let never = entrances.remove(absent);
            let errors = failures(finish(start(entrances, |mut met| met.all_gather(b"here"))));
            for error in errors {
                assert!(matches!(error.kind(), Kind::Deadline | Kind::PeerLost), "{name}: {error}");
                let expected = if name == "pmi" { "not all ranks".into() } else { format!("rank {absent} ") };
                assert!(error.to_string().contains(&expected), "{name}: {error}");
            }
            drop(never);
        }
    }
}

#[test]
fn a_rank_that_leaves_between_two_rounds_is_named() {
    for (name, way) in ways().into_iter().filter(|(name, _)| *name != "pmi") {
        for (size, leaver) in [(2, 1), (4, 2)] {
            let (entrances, _kept) = way(size, LONG);
            let rounds = move |mut met: Box<dyn Bootstrap>| {
                met.all_gather(b"one")?;
                if met.rank() == leaver {
                    return Err(Error::usage("left"));
                }
                met.all_gather(b"two")
            };
            for (rank, error) in failures(finish(start(entrances, rounds))).into_iter().enumerate() {
                if rank != leaver {
                    assert_eq!(error.kind(), Kind::PeerLost, "{name}: {error}");
                    assert!(error.to_string().contains(&format!("rank {leaver} left")), "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn too_many_bytes_are_refused_at_once() {
    let (entrances, _kept) = unix(2, LONG);
    for error in failures(finish(start(entrances, |mut met| met.all_gather(&vec![0; (1 << 20) + 1])))) {
        assert_eq!(error.kind(), Kind::Usage);
    }
}

/// Rank 0's outcome and rank 1's, where the two were started with these variables besides.
fn pair(hub: &[(&str, String)], spoke: &[(&str, String)], allowed: Duration) -> Vec<Error> {
    let entrances = vec![entrance(config(0, 2, hub), allowed), entrance(config(1, 2, spoke), allowed)];
    failures(finish(start(entrances, |mut met| met.all_gather(b"in"))))
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    let place = ("KOLO_RENDEZVOUS", format!("127.0.0.1:{}", free_port()));
    let hub = [place.clone(), ("KOLO_SECRET", SECRET.to_owned())];
    let spoke = [place, ("KOLO_SECRET", "another, just as long as it needs to be".to_owned())];
    let errors = pair(&hub, &spoke, SHORT);
    assert_eq!(errors[1].kind(), Kind::Refused);
    assert!(errors[1].to_string().contains("KOLO_SECRET"), "{}", errors[1]);
    let text = errors[0].to_string();
    assert!(
        text.contains("rank 1 did not come within 0.3 s; somebody was refused, who claimed to be rank 1"),
        "{text}"
    );
}

#[test]
fn ranks_that_do_not_agree_on_encryption_are_told_so() {
    for place in [format!("127.0.0.1:{}", free_port()), format!("@{}", unique("odds"))] {
        let place = [("KOLO_RENDEZVOUS", place), ("KOLO_SECRET", SECRET.into())];
        let with = [&place[..], &[("KOLO_ENCRYPT", "1".into())]].concat();
        for (hub, spoke, on, off) in [(&place[..], &with[..], 1, 0), (&with[..], &place[..], 0, 1)] {
            for error in pair(hub, spoke, LONG) {
                assert_eq!(error.kind(), Kind::Refused);
                let said =
                    format!("rank {on} has KOLO_ENCRYPT=1, rank {off} has not: set it alike on all ranks");
                let text = error.to_string();
                assert!(text.ends_with(&said) && !text.contains('\n'), "{text}");
            }
        }
    }
}

#[test]
fn another_job_another_size_and_a_number_given_twice_are_said() {
    let place = || ("KOLO_RENDEZVOUS", format!("@{}", unique("odds")));
    let here = place();
    let errors = pair(&[here.clone(), ("KOLO_JOB", "a".into())], &[here, ("KOLO_JOB", "b".into())], SHORT);
    assert!(errors[1].to_string().contains("rank 1 is of another job than rank 0, whose KOLO_JOB is `a`"));

    let here = place();
    let errors = pair(std::slice::from_ref(&here), &[here.clone(), ("KOLO_SIZE", "3".into())], LONG);
    for error in errors {
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("rank 1 was told that there are 3 ranks"), "{error}");
    }

    let here = place();
    let enter = |rank| entrance(config(rank, 3, std::slice::from_ref(&here)), LONG);
    for error in failures(finish(start(vec![enter(0), enter(1), enter(1)], |mut met| met.all_gather(b"in"))))
    {
        assert!(error.to_string().contains("two ranks say that they are rank 1"), "{error}");
    }
}

/// One that belongs to another start under the same secret, at the same place: it is told so, and the others meet.
#[test]
fn a_straggler_of_an_earlier_start_is_refused_and_disturbs_nobody() {
    let place = [("KOLO_RENDEZVOUS", format!("127.0.0.1:{}", free_port())), ("KOLO_SECRET", SECRET.into())];
    let of = |start: &str| [&place[..], &[("KOLO_JOB", start.to_owned())]].concat();
    // It is there first: it waits for a rank 0, whichever comes.
    let straggler = start(vec![entrance(config(1, 2, &of("first")), LONG)], |mut met| met.all_gather(b"old"));
    let mut ranks =
        start(vec![entrance(config(0, 2, &of("second")), LONG)], |mut met| met.all_gather(b"new"));
    let error = finish(straggler).remove(0).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.to_string().contains("is of another job than rank 0, whose KOLO_JOB is `second`"),
        "{error}"
    );
    ranks.extend(start(vec![entrance(config(1, 2, &of("second")), LONG)], |mut met| met.all_gather(b"new")));
    for met in finish(ranks) {
        assert_eq!(met.unwrap(), [b"new", b"new"]);
    }
}

#[test]
fn a_port_in_use_and_a_rendezvous_without_a_secret_are_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = ("KOLO_RENDEZVOUS", format!("127.0.0.1:{port}"));
    let hub = config(0, 2, &[place, ("KOLO_SECRET", SECRET.into())]);
    let error = join(&hub, Deadline::after(Some(LONG))).err().unwrap().to_string();
    assert!(error.contains(&format!("port {port} is in use: choose another in KOLO_RENDEZVOUS")), "{error}");

    let open = config(0, 2, &[("KOLO_RENDEZVOUS", "192.0.2.1:29500".into())]);
    let error = join(&open, Deadline::after(Some(LONG))).err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("KOLO_SECRET_FILE"), "{error}");

    // Within a host the kernel vouches for the user instead.
    let place = format!("127.0.0.1:{}", free_port());
    let met = finish(start(star(2, LONG, &[("KOLO_RENDEZVOUS", place)]), |mut met| met.all_gather(b"in")));
    assert!(met.iter().all(Result::is_ok));
}

#[test]
fn strangers_do_not_disturb_a_job() {
    let port = free_port();
    let place = [("KOLO_RENDEZVOUS", format!("127.0.0.1:{port}")), ("KOLO_SECRET", SECRET.into())];
    let mut entrances = star(3, LONG, &place);
    let late = entrances.pop().unwrap();
    let ranks = start(entrances, |mut met| met.all_gather(b"in"));

    let knock = || loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => std::thread::yield_now(),
        }
    };
    // Silent ones, as many as there are places; talkative ones; one that begins as a rank does.
    let silent: Vec<TcpStream> = (0..300).map(|_| knock()).collect();
    for words in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"kolo-hi4",
        &[b"kolo-hi4".as_slice(), &[0; 200]].concat(),
    ] {
        let mut stranger = knock();
        stranger.set_read_timeout(Some(LONG)).unwrap();
        let _ = stranger.write_all(words);
        let _ = stranger.shutdown(std::net::Shutdown::Write);
        // It is sent away: what comes back ends, and is no more than a challenge and an empty verdict.
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.len() <= 75, "{} bytes for a stranger", answer.len());
    }
    let mut ranks = ranks;
    ranks.extend(start(vec![late], |mut met| met.all_gather(b"in")));
    for outcome in finish(ranks) {
        assert_eq!(outcome.unwrap().len(), 3);
    }
    drop(silent);
}

#[test]
fn a_squatter_who_answers_nothing_costs_no_more_than_the_deadline() {
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("127.0.0.1:{}", squatter.local_addr().unwrap().port());
    let spoke = config(1, 2, &[("KOLO_RENDEZVOUS", place), ("KOLO_SECRET", SECRET.into())]);
    let began = Instant::now();
    let error = join(&spoke, Deadline::after(Some(SHORT))).err().unwrap();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(error.to_string().contains("rank 0 was not reached") && began.elapsed() >= SHORT, "{error}");
}

#[test]
fn ranks_learn_where_all_live_and_agree_on_a_secret() {
    for (name, way) in ways() {
        let (entrances, _kept) = way(4, LONG);
        let learn = |mut met: Box<dyn Bootstrap>| {
            let secret = Secret::agree(&mut *met, None)?;
            let mut door = Door::open("job", met.rank(), met.size(), secret.clone())?;
            let roster = Roster::gather(
                &mut *met,
                &mut door,
                Tcp::Always,
                Doorway { ports: &(0..=0), interfaces: None, encrypt: false },
                |_| String::new(),
            )?;
            met.all_gather(b"")?;
            Ok((secret, roster))
        };
        let learned: Vec<_> = finish(start(entrances, learn)).into_iter().map(Result::unwrap).collect();
        for (secret, roster) in &learned {
            assert!(*secret == learned[0].0, "{name}");
            assert_eq!(roster.nodes, learned[0].1.nodes, "{name}");
            assert_eq!(roster.hosts, [0; 4], "{name}");
            assert!(roster.nodes.iter().all(|node| node.tcp.len() == 1 && node.tcp[0].ip().is_loopback()));
            assert!(roster.nodes.iter().all(|node| node.process == roster.nodes[0].process));
        }
    }
}

#[test]
fn every_rank_says_whose_ports_are_all_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (entrances, _kept) = local(3, LONG);
    let learn = move |mut met: Box<dyn Bootstrap>| {
        let mut door = Door::open("job", met.rank(), met.size(), Secret::random()?)?;
        let ports = if met.rank() == 1 { port..=port } else { 0..=0 };
        Roster::gather(
            &mut *met,
            &mut door,
            Tcp::Always,
            Doorway { ports: &ports, interfaces: None, encrypt: false },
            |_| String::new(),
        )
    };
    for (rank, error) in failures(finish(start(entrances, learn))).into_iter().enumerate() {
        let text = error.to_string();
        assert!(
            text.contains(&format!("no free port in KOLO_PORT={port} (Address already in use")),
            "{text}"
        );
        assert!(rank == 1 || text.starts_with("rank 1: "), "{text}");
    }
}
