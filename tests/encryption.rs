//! KOLO_ENCRYPT: what somebody on the way between two ranks sees, and what becomes of what it does there.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kolo::bootstrap::{self, Bootstrap, Door, Doorway, Local, Node, Roster, Secret, join};
use kolo::config::{Config, Links};
use kolo::health::Deadline;
use kolo::memory::{Allocations, Bell, View};
use kolo::transport::{Link, Meeting, Tag, Transport, fabric, tcp};
use kolo::{Communicator, Error, Kind, ReduceOp, Result};

const SECRET: &str = "a secret that only this test's ranks know";
const PATTERN: &[u8] = b"a pattern that stands in the clear or does not";
const LONG: Duration = Duration::from_secs(30);
const TAG: Tag = Tag { digest: 7, body: [1, 2, 3, 4] };

/// Somebody on the way to `to`, who writes down what goes there and what comes back, and may change a byte of what goes.
struct Middle {
    at: SocketAddr,
    there: Arc<Mutex<Vec<u8>>>,
    back: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    /// Takes one connection. It changes the first byte that goes there after so many.
    fn new(to: SocketAddr, changes: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (there, back) = (Arc::default(), Arc::default());
        let (going, coming) = (Arc::clone(&there), Arc::clone(&back));
        thread::spawn(move || {
            let near = listener.accept().unwrap().0;
            let far = dial(to);
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || pass(far_too, near_too, &coming, None));
            pass(near, far, &going, changes);
        });
        Self { at, there, back }
    }

    fn saw(&self, what: &[u8]) -> bool {
        [&self.there, &self.back]
            .iter()
            .any(|seen| seen.lock().unwrap().windows(what.len()).any(|window| window == what))
    }
}

/// Whoever is to listen may not have begun yet.
fn dial(to: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(to) {
            Ok(stream) => return stream,
            Err(cause) => assert!(begun.elapsed() < LONG, "{to}: {cause}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>, mut changes: Option<usize>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut seen = seen.lock().unwrap();
        let begin = seen.len();
        seen.extend_from_slice(&buffer[..count]);
        drop(seen);
        if let Some(at) = changes.filter(|at| begin + count > *at) {
            buffer[at.saturating_sub(begin)] ^= 1;
            changes = None;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(rank: usize, place: SocketAddr, encrypt: bool) -> Config {
    let variables: HashMap<&str, String> = [
        ("KOLO_RANK", rank.to_string()),
        ("KOLO_SIZE", "2".into()),
        ("KOLO_RENDEZVOUS", place.to_string()),
        ("KOLO_SECRET", SECRET.into()),
        ("KOLO_ENCRYPT", u8::from(encrypt).to_string()),
        ("KOLO_TRANSPORT", "tcp".into()),
    ]
    .into();
    Config::read(&|name| variables.get(name).map(OsString::from)).unwrap()
}

/// Two ranks that meet, rank 1 through the middle, and tell each other the pattern.
fn meet(encrypt: bool, changes: Option<usize>) -> (Middle, [Result<Vec<Vec<u8>>>; 2]) {
    let place = free_address();
    let middle = Middle::new(place, changes);
    let enter = |rank, place| {
        let config = config(rank, place, encrypt);
        thread::spawn(move || join(&config, Deadline::after(Some(LONG)))?.all_gather(PATTERN))
    };
    let ranks = [enter(0, place), enter(1, middle.at)];
    let outcomes = ranks.map(|rank| rank.join().unwrap());
    (middle, outcomes)
}

#[test]
fn the_rendezvous_shows_what_ranks_say_only_without_encryption() {
    for encrypt in [false, true] {
        let (middle, outcomes) = meet(encrypt, None);
        for outcome in outcomes {
            assert_eq!(outcome.unwrap(), [PATTERN, PATTERN]);
        }
        assert_eq!(middle.saw(PATTERN), !encrypt);
        assert!(!middle.saw(SECRET.as_bytes()));
    }
}

#[test]
fn what_was_changed_on_its_way_to_the_rendezvous_is_refused() {
    // Of the first record: its first byte, one in its middle, its last.
    let handshake = 136 + 32 + 48;
    for at in [0, 20, 4 + PATTERN.len() + 15] {
        let (_, [hub, spoke]) = meet(true, Some(handshake + 2 + at));
        let error = hub.unwrap_err();
        assert!(error.to_string().contains("rank 1: what came was changed on its way"), "{error}");
        assert!(spoke.is_err());
    }
}

/// Whoever recorded a conversation and plays it again learns nothing and is nobody.
#[test]
fn a_recorded_conversation_is_of_no_use() {
    let (middle, outcomes) = meet(true, None);
    assert!(outcomes.iter().all(Result::is_ok));
    let (there, back) = (middle.there.lock().unwrap().clone(), middle.back.lock().unwrap().clone());

    // To another rank 0 of the same job.
    let place = free_address();
    let hub = config(0, place, true);
    let hub = thread::spawn(move || join(&hub, Deadline::after(Some(LONG)))?.all_gather(PATTERN));
    let mut player = dial(place);
    player.set_read_timeout(Some(LONG)).unwrap();
    player.write_all(&there).unwrap();
    let mut answer = Vec::new();
    let _ = player.read_to_end(&mut answer);
    assert!(answer.len() <= 75, "{} bytes for who plays a recording", answer.len());
    let spoke = config(1, place, true);
    let spoke = thread::spawn(move || join(&spoke, Deadline::after(Some(LONG)))?.all_gather(PATTERN));
    for rank in [hub, spoke] {
        assert_eq!(rank.join().unwrap().unwrap(), [PATTERN, PATTERN]);
    }

    // To another rank 1.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spoke = config(1, listener.local_addr().unwrap(), true);
    let spoke = thread::spawn(move || join(&spoke, Deadline::after(Some(LONG))).err());
    let mut player = listener.accept().unwrap().0;
    player.write_all(&back).unwrap();
    let error: Error = spoke.join().unwrap().expect("a recording is not believed");
    assert_eq!(error.kind(), Kind::Refused);
}

/// Links between ranks 0 and 1, whose stream goes through the middle, and what must stay as long as they.
struct Linked {
    middle: Middle,
    links: [Box<dyn Link>; 2],
}

fn link(encrypt: bool, changes: Option<usize>) -> Linked {
    let secret = Secret::new(SECRET.as_bytes()).unwrap();
    let learn = |mut met: Local| {
        let mut door = Door::open("job", met.rank(), met.size(), secret.clone()).unwrap();
        let doorway = Doorway { ports: &(0..=0), interfaces: None, encrypt };
        let tcp = bootstrap::Tcp::Always;
        let roster = Roster::gather(&mut met, &mut door, tcp, doorway, |_| String::new()).unwrap();
        door.attend(Arc::default()).unwrap();
        (door, roster.nodes)
    };
    let mets = Local::all(2, Deadline::after(Some(LONG)));
    thread::scope(|scope| {
        let learners: Vec<_> = mets.into_iter().map(|met| scope.spawn(|| learn(met))).collect();
        let mut learned: Vec<_> = learners.into_iter().map(|rank| rank.join().unwrap()).collect();
        // Of two ranks the lower one dials.
        let middle = Middle::new(learned[0].1[1].tcp[0], changes);
        learned[0].1[1].tcp = vec![middle.at];
        let open = |me: usize, (door, nodes): (Door, Vec<Node>)| {
            let door = Arc::new(door);
            let (bell, allocations) = (Bell::new().unwrap(), Arc::new(Allocations::default()));
            let meeting = Meeting {
                me,
                peer: 1 - me,
                communicator: 1,
                origin: 1,
                channel: 0,
                node: &nodes[1 - me],
                door: &door,
                bell: &bell,
                allocations: &allocations,
                deadline: Deadline::after(Some(LONG)),
                keepalive: None,
            };
            tcp::Tcp { encrypt }.connect(&meeting).unwrap()
        };
        let ends: Vec<_> =
            learned.into_iter().enumerate().map(|(me, rank)| scope.spawn(move || open(me, rank))).collect();
        let links: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
        Linked { middle, links: links.try_into().unwrap_or_else(|_| panic!("two")) }
    })
}

/// Looks at the other end until there is a message, or news.
fn take(linked: &Linked) -> Result<Vec<u8>> {
    let begun = Instant::now();
    let [from, to] = &linked.links;
    loop {
        from.settled()?;
        if let Some(message) = to.peek()? {
            let mut bytes = vec![0; message.payload.len()];
            kolo::kernel::copy(&[View::write(&mut bytes)], message.payload);
            to.release()?;
            return Ok(bytes);
        }
        assert!(begun.elapsed() < LONG, "neither a message nor news");
        thread::yield_now();
    }
}

#[test]
fn a_link_shows_its_payload_only_without_encryption() {
    for encrypt in [false, true] {
        let linked = link(encrypt, None);
        let long: Vec<u8> = PATTERN.iter().copied().cycle().take(500_000).collect();
        for payload in [PATTERN, &long] {
            assert!(linked.links[0].send(View::read(payload), &TAG).unwrap());
            assert!(take(&linked).unwrap() == payload);
        }
        assert_eq!(linked.middle.saw(PATTERN), !encrypt);
    }
}

#[test]
fn a_message_that_was_changed_on_its_way_fails_the_link() {
    let handshake = 136 + 32 + 48;
    for at in [2, 30, 70_000] {
        let linked = link(true, Some(handshake + at));
        assert!(linked.links[0].send(View::read(&[1; 200_000]), &TAG).unwrap());
        let error = take(&linked).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("was changed on its way"), "{error}");
        let again = linked.links[1].peek().map(|_| ()).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        assert!(linked.links[1].alive().is_err());
    }
}

#[test]
fn a_job_that_encrypts_adds_up_right() {
    let links = Links { encrypt: true, ..Links::default() };
    let config = Config { transports: Some(vec!["tcp".into()]), links, ..Config::alone() };
    for size in 2..=4 {
        let communicators = Communicator::threads(size, &config).unwrap();
        thread::scope(|scope| {
            for mut communicator in communicators {
                scope.spawn(move || {
                    let rank = communicator.rank();
                    for count in [0, 1, 2, 1000, 20_000, 1_000_003] {
                        let mut data: Vec<u32> = (0..count).map(|at| (at * (rank + 1)) as u32).collect();
                        communicator.all_reduce_in_place(&mut data, ReduceOp::Sum).unwrap();
                        let all = (size * (size + 1) / 2) as u32;
                        assert!(
                            data.iter().enumerate().all(|(at, &sum)| sum == (at as u32).wrapping_mul(all))
                        );
                        let mine = vec![rank as u16; count];
                        let mut theirs = vec![9; count * size];
                        communicator.all_gather(&mine, &mut theirs).unwrap();
                        assert!(theirs.iter().enumerate().all(|(at, &from)| usize::from(from) == at / count));
                    }
                });
            }
        });
    }
}

#[test]
fn libfabric_serves_encrypting_ranks_of_one_host_only() {
    let door = Door::open("job", 0, 1, Secret::random().unwrap()).unwrap();
    let node = |address: &str| Node { tcp: vec![address.parse().unwrap()], ..Node::here(&door) };
    for (encrypt, address, refused) in
        [(true, "192.0.2.1:1", true), (true, "127.0.0.1:1", false), (false, "192.0.2.1:1", false)]
    {
        let transport = fabric::Fabric::new(Links { encrypt, ..Links::default() }, true);
        let why = transport.reach(&node(address), &node(address)).unwrap_err();
        assert_eq!(why.contains("its data is not encrypted (KOLO_ENCRYPT=1)"), refused, "{why}");
        if refused {
            assert_eq!(transport.offer(&node(address).tcp), "");
        }
    }
}
