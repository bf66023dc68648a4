//! One end of a link to a peer that is played by hand: what no correct peer does is refused.

use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use super::hello::HELLO;
use super::*;
use crate::error::Kind;

const TAG: Tag = Tag { digest: 1, body: [2; 4] };

fn soon() -> Deadline {
    Deadline::after(Some(Duration::from_secs(20)))
}

/// A link, as the higher rank has it, to a peer that this test plays by hand.
fn played() -> (Box<dyn Link>, Shared<Layout>, UnixStream) {
    let (mine, theirs) = UnixStream::pair().unwrap();
    let (memory, fd) = Shared::<Layout>::create("kolo-test").unwrap();
    let bell = Bell::new().unwrap();
    let [page, event] = bell.descriptors();
    send_hello(&mine, &[page, event, fd.as_fd()]).unwrap();
    (link_over(theirs, false, &bell, soon()).unwrap(), memory, mine)
}

#[test]
fn headers_that_no_rank_could_mean_are_refused() {
    let (link, memory, _stream) = played();
    let header = &memory.rings[0][1];
    header.number.store(1, Ordering::Release);
    let (slot, theirs, mine) = (SLOT as u32, 0, BUFFERS / 2);
    let cases = [
        (slot + 1, theirs, "a length"),
        (u32::MAX, theirs, "a length"),
        (slot, mine, "a buffer"),
        (slot, BUFFERS, "a buffer"),
        (PACKED as u32 + 1, HANDED - 1, "a buffer"),
    ];
    for (len, buffer, what) in cases {
        header.about.store(About { len, buffer, news: 0 }.word(), Ordering::Relaxed);
        let error = link.peek().unwrap_err();
        assert_eq!(error.kind(), Kind::PeerLost);
        assert!(error.to_string().contains(&format!("wrote {what}")), "{error}");
        assert_eq!(link.release().unwrap_err().kind(), Kind::Usage, "nothing was peeked");
    }
    // Nothing is known that could be lent, and this rank has lent nothing.
    for (buffer, what) in [(LENT, "a loan"), (SHOWN, "a loan"), (HANDED, "a loan"), (ANSWERED, "an answer")] {
        header.about.store(About { len: PACKED as u32 + 1, buffer, news: 0 }.word(), Ordering::Relaxed);
        let error = link.peek().unwrap_err();
        assert!(error.to_string().contains(&format!("wrote {what}")), "{error}");
    }
    // News that cannot be are no news.
    header.about.store(About { len: slot, buffer: theirs, news: 99 }.word(), Ordering::Relaxed);
    assert_eq!(link.peek().unwrap().unwrap().payload.len(), SLOT);
    link.release().unwrap();
}

#[test]
fn buffers_that_the_peer_cannot_return_are_refused() {
    let (link, memory, _stream) = played();
    memory.boards[0].returned.store(1 << BUFFERS, Ordering::Release);
    for number in 0..u64::from(BUFFERS / 2) {
        link.reserve(SLOT).unwrap().unwrap();
        link.commit(SLOT, &TAG).unwrap();
        memory.boards[0].released.store(number + 1, Ordering::Release);
    }
    assert!(link.reserve(SLOT).unwrap_err().to_string().contains("wrote a buffer"));
}

#[test]
fn an_answer_goes_back_in_the_buffer_that_came() {
    let (link, memory, _stream) = played();
    let header = &memory.rings[0][1];
    header.about.store(About { len: 1000, buffer: 3, news: 0 }.word(), Ordering::Relaxed);
    header.number.store(1, Ordering::Release);
    let came = link.peek().unwrap().unwrap().payload;
    let answer = link.answer(1000).unwrap().unwrap();
    assert!(answer.same_place(came));
    link.commit(1000, &TAG).unwrap();
    link.release().unwrap();
    let sent = About::of(memory.rings[1][1].about.load(Ordering::Relaxed));
    assert_eq!((sent.len, sent.buffer), (1000, 3));
    assert!(!link.reserve(1000).unwrap().unwrap().same_place(came), "it is the peer's again");
}

#[test]
fn credits_that_nobody_earned_are_refused() {
    let (link, memory, _stream) = played();
    for _ in 0..HEADERS {
        link.reserve(8).unwrap().unwrap();
        link.commit(8, &TAG).unwrap();
    }
    memory.boards[0].released.store(HEADERS as u64 + 1, Ordering::Release);
    assert!(link.reserve(8).unwrap_err().to_string().contains("wrote a credit"));
    memory.boards[0].released.store(1, Ordering::Release);
    assert!(link.reserve(8).unwrap().is_some());
}

#[test]
fn numbers_out_of_turn_are_no_messages() {
    let (link, memory, _stream) = played();
    for number in [2, HEADERS as u64 + 1, u64::MAX] {
        memory.rings[0][1].number.store(number, Ordering::Release);
        assert!(link.peek().unwrap().is_none());
    }
}

#[test]
fn a_peer_whose_stream_ends_is_gone() {
    let (link, _memory, stream) = played();
    link.alive().unwrap();
    drop(stream);
    let error = link.alive().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::PeerLost, "its process is gone"));
}

/// What the lower rank says of a peer that greets it by `greet`.
fn greeted<R>(greet: impl FnOnce(UnixStream) -> R) -> Error {
    let (mine, theirs) = UnixStream::pair().unwrap();
    let deadline = Deadline::after(Some(Duration::from_millis(200)));
    let lower = thread::spawn(move || link_over(mine, true, &Bell::new().unwrap(), deadline).err());
    let _kept = greet(theirs);
    lower.join().unwrap().unwrap()
}

#[test]
fn strange_greetings_are_refused() {
    let bell = Bell::new().unwrap();
    let [page, event] = bell.descriptors();
    let hello = HELLO.map(u64::to_ne_bytes);

    let send = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
        greeted(|stream| {
            os::send_with(&stream, bytes, fds).unwrap();
            stream
        })
    };
    let error = send(&[7; 24], &[page, event]);
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("use one build"), "{error}");

    let error = send(hello.as_flattened(), &[page]);
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("1 descriptors instead of 2"), "{error}");

    // An eventfd is no memory.
    let error = send(hello.as_flattened(), &[event, page]);
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("cannot be trusted"), "{error}");
}

#[test]
fn a_peer_that_ends_or_stays_silent_is_said() {
    assert_eq!(greeted(drop).kind(), Kind::PeerLost);
    assert_eq!(greeted(|stream| stream).kind(), Kind::Deadline);
}
