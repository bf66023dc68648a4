//! Probes of what ranks and launchers say while ranks meet; see [`crate::parsers`].

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::handshake::{CHALLENGE, Dialer, PROOF, Reply, VERDICT, Waiter};
use super::hello::{HELLO, Hello, Purpose, Via};
use super::pmi::{Pmi, unhex};
use super::secret::{Secret, hex};
use super::star::{Inbox, MOST, Seat, Spoke};
use super::stream::{Stream, Trouble};
use super::wire::Writer;
use super::{Bootstrap, Node, Sight, inquiry, window};
use crate::health::{Awaited, Clash, Deadline, Report, Stage, Waiting};
use crate::sys::cgroup::Cgroup;

/// The most that is put into a socket at once: what any takes.
const FITS: usize = 32 << 10;
const NONCE: [u8; 32] = [7; 32];

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn secret() -> Secret {
    Secret::new(b"known to the ranks of this job").expect("long enough")
}

/// Two ends of a stream; the second is written to by hand.
fn streams() -> (Stream, UnixStream) {
    let (mine, theirs) = UnixStream::pair().expect("two sockets are to be had");
    (Stream::Unix(mine), theirs)
}

/// A stream on which all of this has come, and then the end.
fn brings(bytes: &[u8]) -> (Stream, UnixStream) {
    let (mine, mut theirs) = streams();
    theirs.write_all(&bytes[..bytes.len().min(FITS)]).expect("a fresh socket takes that much");
    theirs.shutdown(Shutdown::Write).expect("an open socket shuts");
    (mine, theirs)
}

/// A hello, and a proof; where only the hello is there, the right proof is added.
pub(crate) fn hello(bytes: &[u8]) {
    if let Some(hello) = Hello::decode(bytes) {
        let again = hello.encode();
        assert_eq!(again.len(), HELLO);
        assert_eq!(Hello::decode(&again), Some(hello));
    }
    let mut words = bytes.to_vec();
    if words.len() == HELLO {
        let challenge = Writer::default().raw(&words[..8]).raw(&NONCE).done();
        words.extend(secret().prove("dialer", &[&words[..HELLO], &challenge]));
    }
    let whole = wait_for(&words, HELLO);
    for step in [1, 7, 127] {
        assert_eq!(wait_for(&words, step), whole, "in steps of {step}");
    }
}

/// What a waiter replies in the end, if it hears so many bytes at a time.
fn wait_for(mut words: &[u8], step: usize) -> Option<Result<Hello, String>> {
    let mut waiter = Waiter::new(NONCE, false);
    loop {
        let wants = waiter.wants();
        assert!((1..=HELLO).contains(&wants), "it wants {wants} bytes");
        let (now, later) = words.split_at(words.len().min(wants.min(step)));
        if now.is_empty() {
            return None;
        }
        words = later;
        match waiter.hear(now, &secret(), &mut |_| Ok(())) {
            Reply::Listen => {}
            Reply::Say(challenge) => assert_eq!(challenge.len(), CHALLENGE),
            Reply::Admit(verdict, hello, _) => {
                assert_eq!(verdict.len(), VERDICT);
                return Some(Ok(hello));
            }
            Reply::Refuse(_, refusal) => return Some(Err(refusal.why)),
        }
    }
}

pub(crate) fn hellos() -> Seeds {
    let link = |via| Purpose::Link { communicator: 5, origin: 4, channel: 2, via };
    let of = |purpose| Hello::new("job", (1, 3), 4, purpose, false, [9; 32]).encode();
    let mut other = of(Purpose::Rendezvous);
    other[8..14].copy_from_slice(b"9.8.7\0");
    let mut kind = of(Purpose::Rendezvous);
    kind[84] = 9;
    let mut unproved = of(link(Via::Tcp));
    unproved.extend([1; PROOF]);
    vec![
        ("rendezvous", of(Purpose::Rendezvous)),
        ("link-unix", of(link(Via::Unix))),
        ("link-tcp", of(link(Via::Tcp))),
        ("grow", of(Purpose::Grow { number: 7 })),
        ("join", of(Purpose::Join)),
        ("left", of(Purpose::Left { communicator: 7, origin: 4 })),
        ("another-version", other),
        ("another-kind", kind),
        ("wrong-proof", unproved),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("cut", of(Purpose::Rendezvous)[..50].to_vec()),
    ]
}

/// A challenge and a verdict.
pub(crate) fn dialer(bytes: &[u8]) {
    let (challenge, rest) = bytes.split_at(bytes.len().min(CHALLENGE));
    let secret = secret();
    let hello = Hello::new("job", (1, 3), 4, Purpose::Rendezvous, false, [9; 32]);
    let (mut dialer, said) = Dialer::new(&hello, &secret, false);
    let (mut again, _) = Dialer::new(&hello, &secret, false);
    if dialer.answer(challenge).is_err() || again.answer(challenge).is_err() {
        return;
    }
    let Some((verdict, words)) = rest.split_first_chunk::<VERDICT>() else { return };
    let Ok(len) = Dialer::words(verdict) else { return };
    let words = &words[..words.len().min(len)];
    if let Err(error) = dialer.judge(verdict, words) {
        assert!(error.to_string().is_ascii());
    }
    // The same under the right proof counts as it says: yes, or later.
    let mut proved = *verdict;
    let proof = secret.prove("waiter", &[&said, challenge, &verdict[PROOF..], words]);
    proved[..PROOF].copy_from_slice(&proof);
    assert_eq!(again.judge(&proved, words).is_ok(), [1, 2].contains(&verdict[PROOF]));
}

pub(crate) fn verdicts() -> Seeds {
    let challenge = || Writer::default().raw(b"kolo-hi4").raw(&NONCE);
    let verdict = |accepts: u8, words: &str| challenge().raw(&[0; PROOF]).u8(accepts).text(words).done();
    let mut long = verdict(0, "");
    long[CHALLENGE + PROOF + 1..].copy_from_slice(&[0xff, 0xff]);
    vec![
        ("accepts", verdict(1, "")),
        ("refuses", verdict(0, "rank 1 is here already")),
        ("later", verdict(2, "the job is still starting")),
        ("escapes", verdict(0, "\x1b[2Jcleared\n")),
        ("long-words", long),
        ("challenge-alone", challenge().done()),
        ("another-protocol", b"SSH-2.0-OpenSSH_9.7 and whatever stands there".to_vec()),
    ]
}

/// A rank's card.
pub(crate) fn card(bytes: &[u8]) {
    match Node::decode(3, bytes) {
        Ok(node) => {
            assert_eq!(node.encode(), bytes);
            assert_eq!(node.tcp.len(), node.networks.len());
            for (door, bits) in node.tcp.iter().zip(&node.networks) {
                let network = super::interfaces::network((door.ip(), *bits));
                assert_eq!(super::interfaces::network(network), network);
            }
        }
        Err(error) => assert!(error.to_string().is_ascii()),
    }
}

/// What a rank answers at its door: how far it has come, or who is left.
pub(crate) fn answer(bytes: &[u8]) {
    if let Some(reports) = inquiry::decode(bytes) {
        assert_eq!(inquiry::decode(&inquiry::encode(&reports)), Some(reports));
    }
    if let Some(Sight { job, size, reports }) = window::decode(bytes) {
        let again = window::encode(&job, size as usize, &reports);
        assert_eq!(window::decode(&again), Some(Sight { job, size, reports }));
    }
    if let Some(calls) = inquiry::decode_calls(bytes) {
        assert_eq!(inquiry::decode_calls(&inquiry::encode_calls(&calls)), Some(calls));
    }
    if let Some(stage) = inquiry::decode_stage(bytes, 1000) {
        let ranks = if let Stage::Decided(left) = &stage { left.len() } else { 0 };
        // A few bytes must not stand for more ranks than there are, however often they are repeated.
        assert!(ranks <= 1000, "{ranks} ranks of 1000 are left");
        assert_eq!(inquiry::decode_stage(&inquiry::encode_stage(&stage), 1000), Some(stage));
    }
}

pub(crate) fn answered() -> Seeds {
    let on = vec![Awaited { rank: 3, message: true }, Awaited { rank: 4, message: false }];
    let waiting = Waiting { call: [7, 2, 100, 1 << 40], waited: Duration::from_millis(250), on };
    let idle = Report { communicator: 7, begun: 2, done: 2, failed: None, clash: None, waiting: None };
    let clash = Some(Clash { ranks: [1, 3], calls: [[7, 2, 100, 1 << 40], [7, 2, 101, 1 << 40]] });
    let odd = Report { clash, failed: Some(Some(3)), ..idle.clone() };
    let failed = Report { done: 1, failed: Some(Some(3)), waiting: Some(waiting), ..idle.clone() };
    let decided = Stage::Decided((0..5).chain(7..1000).collect());
    let doubled = Writer::default().u8(2).u16(2).u32(0).u32(1000).u32(0).u32(1000).done();
    vec![
        ("nothing", inquiry::encode(&[])),
        ("through-the-window", window::encode("job", 4, &[idle.clone(), failed.clone()])),
        ("an-idle-and-a-failed-communicator", inquiry::encode(&[idle, failed])),
        ("a-communicator-with-two-calls", inquiry::encode(&[odd])),
        ("two-calls", inquiry::encode_calls(&[[7, 2, 100, 1 << 40], [7, 3, 101, 1 << 40]])),
        ("left-to-another", inquiry::encode_stage(&Stage::Left(2))),
        ("those-that-are-left", inquiry::encode_stage(&decided)),
        ("all-of-them-twice", doubled),
    ]
}

pub(crate) fn cards() -> Seeds {
    let node = Node {
        version: super::hello::VERSION.to_owned(),
        user: 1000,
        pid: 4711,
        process: [1; 16],
        boot: [2; 16],
        network: 4_026_531_840,
        door: "kolo-1000-0123456789abcdef".to_owned(),
        tcp: vec![([10, 1, 2, 3], 4000).into(), ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 4001).into()],
        networks: vec![24, 64],
        fabric: "verbs;ofi_rxm 1.17".to_owned(),
        cgroup: Cgroup::new("/sys/fs/cgroup/job.slice/memory.events".to_owned(), 5271, 3),
    };
    let local = Node { tcp: vec![], networks: vec![], fabric: String::new(), cgroup: None, ..node.clone() };
    let odd = Node { networks: vec![255, 255], ..node.clone() };
    let mut crowd = local.encode();
    *crowd.last_mut().expect("the number of addresses") = 17;
    vec![
        ("two-addresses", node.encode()),
        ("no-address", local.encode()),
        ("odd-networks", odd.encode()),
        ("too-many-addresses", crowd),
        ("another-version", Node { version: "9.9\x1b".to_owned(), ..node.clone() }.encode()),
        ("one-byte-more", [node.encode(), vec![0]].concat()),
    ]
}

/// What a spoke says to the hub.
pub(crate) fn hub(bytes: &[u8]) {
    let whole = hear(bytes, FITS);
    for step in [1, 3, 1000] {
        assert_eq!(hear(bytes, step), whole, "in steps of {step}");
    }
}

/// What came, or nothing while it is not whole; an error in words.
fn hear(bytes: &[u8], step: usize) -> Result<Option<Vec<u8>>, String> {
    let (mine, mut theirs) = streams();
    let mut inbox = Inbox::default();
    for piece in bytes[..bytes.len().min(FITS)].chunks(step) {
        theirs.write_all(piece).expect("its reader has taken what came before");
        match inbox.read(&mine) {
            Ok(()) => {}
            Err(Trouble::Os(cause)) => return Err(cause.to_string()),
            Err(trouble) => panic!("{trouble:?} on an open stream"),
        }
        assert!(inbox.bytes.capacity() <= MOST);
        if inbox.complete() {
            return Ok(Some(inbox.bytes));
        }
    }
    Ok(None)
}

pub(crate) fn inboxes() -> Seeds {
    let said = |len: u32, bytes: &[u8]| Writer::default().u32(len).raw(bytes).done();
    vec![
        ("nothing", said(0, b"")),
        ("a-word", said(4, b"word")),
        ("two-in-one", [said(1, b"a"), said(1, b"b")].concat()),
        ("not-whole", said(9, b"word")),
        ("longest", said(MOST as u32, b"word")),
        ("too-long", said(MOST as u32 + 1, b"word")),
        ("endless", said(u32::MAX, b"")),
    ]
}

/// What the hub says to a spoke: to the second of three.
pub(crate) fn spoke(bytes: &[u8]) {
    let (hub, _theirs) = brings(bytes);
    let deadline = Deadline::after(Some(Duration::from_secs(5)));
    let mut spoke = Spoke { seat: Seat { rank: 1, size: 3, generation: 0 }, hub, deadline };
    match spoke.all_gather(b"mine") {
        Ok(all) => {
            let lengths: Vec<u8> = all.iter().flat_map(|bytes| (bytes.len() as u32).to_le_bytes()).collect();
            assert!(bytes.starts_with(&[lengths, all.concat()].concat()));
        }
        Err(error) => assert!(error.to_string().is_ascii()),
    }
}

/// The seat that the hub of a growing job gives.
pub(crate) fn seat(bytes: &[u8]) {
    if let Some(seat) = bytes.try_into().ok().and_then(Seat::decode) {
        assert!(seat.rank < seat.size && seat.generation > 0);
        assert_eq!(seat.encode(), bytes);
    }
    let (hub, _theirs) = brings(bytes);
    let deadline = Deadline::after(Some(Duration::from_secs(5)));
    match Spoke::seated(hub, deadline, &|| Ok(())) {
        Ok(spoke) => assert!(bytes.starts_with(&spoke.seat.encode())),
        Err(error) => assert!(error.to_string().is_ascii()),
    }
}

pub(crate) fn seats() -> Seeds {
    let of = |rank, size, generation| Seat { rank, size, generation }.encode();
    vec![
        ("last-of-four", of(3, 4, 1)),
        ("beyond-the-end", of(4, 4, 1)),
        ("hub", of(0, 4, 1)),
        ("start", of(3, 4, 0)),
        ("too-many", of(3, 1 << 21, 1)),
        ("not-whole", of(3, 4, 1)[..9].to_vec()),
        ("failed", Writer::default().u32(u32::MAX).u8(1).text("1 of 2 newcomers did not come").done()),
    ]
}

pub(crate) fn answers() -> Seeds {
    let all = |lengths: [u32; 3], bytes: &[u8]| {
        lengths.iter().fold(Writer::default(), |answer, &len| answer.u32(len)).raw(bytes).done()
    };
    let failed = |code: u8, why: &str| Writer::default().u32(u32::MAX).u8(code).text(why).done();
    vec![
        ("three-words", all([3, 0, 2], b"abcde")),
        ("not-whole", all([3, 4, 2], b"abcde")),
        ("too-long", all([3, 1 << 21, 2], b"abcde")),
        ("failed-late", failed(1, "rank 2 did not come within 5 s")),
        ("failed-unknown", failed(200, "for no known reason")),
        ("failed-escapes", failed(3, "\x1b[2J")),
        ("failed-long", [failed(3, ""), vec![0; 10]].concat()),
        ("failed-in-the-middle", all([1, u32::MAX, 2], b"abc")),
    ]
}

/// What a launcher that speaks PMI-1 answers to rank 0 of two, from the first word to the last.
pub(crate) fn pmi(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(read) = unhex(&text) {
        assert_eq!(hex(&read), text.to_ascii_lowercase());
    }
    let (mine, _theirs) = brings(bytes);
    let Stream::Unix(mine) = mine else { unreachable!("it was made of a UNIX socket") };
    let deadline = Deadline::after(Some(Duration::from_secs(5)));
    let outcome = Pmi::open(mine.as_raw_fd(), 0, 2, deadline).and_then(|mut pmi| pmi.all_gather(b"mine"));
    match outcome {
        Ok(all) => {
            assert_eq!((all.len(), &all[0][..]), (2, &b"mine"[..]));
            assert!(all[1].len() <= MOST && all[1].len() <= bytes.len());
        }
        Err(error) => assert!(!error.to_string().contains(['\n', '\x1b'])),
    }
}

pub(crate) fn launchers() -> Seeds {
    const INIT: &str = "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n";
    const NAME: &str = "cmd=my_kvsname kvsname=kvs_4711_0\n";
    let begin =
        |most: &str| format!("{INIT}cmd=maxes kvsname_max=256 keylen_max=64 vallen_max={most}\n{NAME}");
    let put = "cmd=put_result rc=0 msg=success\n";
    let barrier = "cmd=barrier_out\n";
    let get = |value: &str| format!("cmd=get_result rc=0 msg=success value={value}\n");
    let whole = |values: &[&str]| {
        let values: String = values.iter().map(|value| get(value)).collect();
        format!("{}{put}{barrier}{values}cmd=finalize_ack\n", begin("1024")).into_bytes()
    };
    vec![
        ("whole", whole(&["4:74776f21"])),
        ("in-parts", whole(&["4:74", "7776", "6f21"])),
        ("empty", whole(&["0:"])),
        ("empty-part", whole(&["4:74", ""])),
        ("too-long", whole(&["99999999999:00"])),
        ("longer-than-said", whole(&["1:0000"])),
        ("no-digits", whole(&["1:zz"])),
        ("not-ascii", whole(&["1:\u{e9}"])),
        ("no-length", whole(&["00"])),
        ("refused-init", b"cmd=response_to_init rc=-1 msg=\x1b[2J\n".to_vec()),
        ("small-store", begin("3").into_bytes()),
        ("no-number", begin("many").into_bytes()),
        ("another-answer", format!("{}{barrier}", begin("64")).into_bytes()),
        ("pmi-2", b"    40cmd=fullinit-response;pmi-version=2;rc=0;".to_vec()),
    ]
}
