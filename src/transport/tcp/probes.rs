//! Probes of what a peer sends over TCP; see [`crate::parsers`].

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::SLOT;
use super::frame::{Frame, HEAD, Kind};
use super::incoming::{Incoming, Over};
use crate::memory::View;
use crate::transport::{Received, Tag};

/// The most that is put into a socket at once: what any takes.
const FITS: usize = 32 << 10;

/// Messages in order, and how the stream ended.
type Heard = (Vec<(Frame, Vec<u8>)>, Over);

/// How a reader takes messages.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Out of the buffer in which they are lent.
    Lent,
    /// Where they belong.
    Placed,
    /// It expects others than come.
    Mistaken,
}

/// A stream, from its first byte to its end.
pub(crate) fn stream(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(FITS)];
    let expected = read(bytes);
    for way in [Way::Lent, Way::Placed, Way::Mistaken] {
        for step in [FITS, 1000, 49, 1] {
            let heard = hear(bytes, step, way, &expected.0);
            assert_eq!(heard, expected, "{way:?}, in steps of {step}");
        }
    }
}

/// The plain way.
fn read(mut bytes: &[u8]) -> Heard {
    let mut messages = Vec::new();
    loop {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return (messages, Over::Cut) };
        let Some(frame) = Frame::decode(head) else { return (messages, Over::Nonsense) };
        assert_eq!(frame.encode(), *head);
        assert!(frame.len <= SLOT);
        match frame.kind {
            Kind::Left => return (messages, Over::Left),
            Kind::Failed => return (messages, Over::Failed),
            Kind::Message => {}
        }
        let Some((payload, rest)) = rest.split_at_checked(frame.len + frame.padding()) else {
            return (messages, Over::Cut);
        };
        messages.push((frame, payload[..frame.len].to_vec()));
        bytes = rest;
    }
}

/// What a reader gets, if so many bytes come at a time.
fn hear(bytes: &[u8], step: usize, way: Way, expected: &[(Frame, Vec<u8>)]) -> Heard {
    let (mine, mut theirs) = UnixStream::pair().expect("two sockets are to be had");
    mine.set_nonblocking(true).expect("a socket may be made so");
    let mut incoming = Incoming::new();
    let mut messages = Vec::new();
    // A message that is being placed goes on to the same place.
    let mut place = Vec::new();
    for piece in bytes.chunks(step) {
        // Where it has ended, nobody reads on.
        if incoming.over().is_none() {
            theirs.write_all(piece).expect("its reader has taken what came before");
            take_all(&mut incoming, &mine, way, expected, &mut place, &mut messages);
        }
    }
    theirs.shutdown(Shutdown::Write).expect("an open socket shuts");
    take_all(&mut incoming, &mine, way, expected, &mut place, &mut messages);
    (messages, incoming.over().expect("the stream has ended"))
}

fn take_all(
    incoming: &mut Incoming,
    socket: &UnixStream,
    way: Way,
    expected: &[(Frame, Vec<u8>)],
    place: &mut Vec<u8>,
    messages: &mut Vec<(Frame, Vec<u8>)>,
) {
    loop {
        // Behind the last one that comes whole, a reader waits for something.
        let next = expected.get(messages.len()).map(|(frame, _)| *frame);
        let wanted = next.unwrap_or(Frame::message(8, &Tag { digest: 1, body: [0; 4] }));
        if way != Way::Lent {
            let digest = wanted.tag.digest ^ u64::from(way == Way::Mistaken);
            place.resize(wanted.len, 0);
            match incoming.receive(View::write(place), digest, socket) {
                Ok(Received::Yes) => {
                    // Its head is gone then; its length and digest were compared.
                    messages.push((wanted, std::mem::take(place)));
                    continue;
                }
                Ok(Received::Later) => return,
                Ok(Received::Peek) => {}
                Err(errno) => panic!("{errno} on an open stream"),
            }
        }
        incoming.fill(socket).expect("an open stream");
        let Some((frame, payload)) = incoming.whole() else { return };
        // SAFETY: so many bytes lie there until the message is released.
        let payload = unsafe { std::slice::from_raw_parts(payload, frame.len) }.to_vec();
        messages.push((frame, payload));
        assert!(incoming.release());
    }
}

pub(crate) fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let tag = Tag { digest: 0x0123_4567_89ab_cdef, body: [1, 2, 3, u64::MAX] };
    let message = |len: usize| {
        let frame = Frame::message(len, &tag);
        [&frame.encode()[..], &vec![5; len], &vec![0; frame.padding()]].concat()
    };
    let last = |kind| Frame::last(kind).encode().to_vec();
    let longest = Frame::message(SLOT, &tag).encode().to_vec();
    let mut beyond = longest.clone();
    beyond[4] = 1;
    vec![
        ("empty-message", message(0)),
        ("small-messages", [message(8), message(1), message(16), message(17)].concat()),
        ("a-message-and-left", [message(100), last(Kind::Left)].concat()),
        ("failed", last(Kind::Failed)),
        ("behind-the-last", [last(Kind::Left), message(8)].concat()),
        ("cut-in-the-head", message(8)[..20].to_vec()),
        ("cut-in-the-payload", message(100)[..90].to_vec()),
        ("cut-in-the-padding", message(1)[..50].to_vec()),
        ("longest-that-does-not-come", longest),
        ("too-long", beyond),
        ("unknown-kind", vec![9; HEAD]),
        ("nonsense-behind-a-message", [message(8), vec![0xff; 60]].concat()),
    ]
}
