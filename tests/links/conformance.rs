//! What every link keeps to. `[a, b]` are its two ends.

use std::ops::Range;
use std::thread;

use kolo::Kind;
use kolo::memory::View;
use kolo::transport::{Lent, Size, Tag, Terms};

use crate::end::{End, bytes, eventually, mix, read, send, tag, take, write};

/// How many messages the tests with random ones send in each direction.
pub(crate) const MANY: u64 = 100_000;

pub(crate) fn messages_keep_their_order(ends: [End; 2]) {
    for number in 0..100 {
        send(&ends, 0, &bytes(number, 16), &tag(number));
        if number % 3 == 2 {
            for number in number - 2..=number {
                assert_eq!(take(&ends, 1).bytes, bytes(number, 16));
            }
        }
    }
}

pub(crate) fn every_size_crosses(ends: [End; 2]) {
    let slot = ends[0].link.limits().slot;
    let lines = (0..=130).chain([255, 256, 257, 4095, 4096, 4097]);
    for len in lines.chain([slot / 2 + 1, slot - 65, slot - 1, slot]) {
        for from in 0..2 {
            send(&ends, from, &bytes(len as u64, len), &tag(len as u64));
            let taken = take(&ends, 1 - from);
            assert!(taken.bytes == bytes(len as u64, len), "{len} bytes were changed");
            assert_eq!(taken.tag, tag(len as u64));
        }
    }
}

pub(crate) fn credit_runs_out_and_comes_back(ends: [End; 2]) {
    let [a, b] = &ends;
    let credit = a.link.limits().credit as u64;
    for len in [1, 5000] {
        let take_all = |numbers: Range<u64>| {
            numbers.for_each(|number| assert_eq!(take(&ends, 1).bytes, bytes(number, len)));
            assert!(b.link.peek().unwrap().is_none());
        };
        for _ in 0..10 {
            let sent = (0..).find(|&number| !a.try_send(&bytes(number, len), &tag(number)).unwrap()).unwrap();
            assert!((credit..1000).contains(&sent), "{sent} on their way, where {credit} may be");
            take_all(0..sent);
        }
        (0..credit).for_each(|number| send(&ends, 0, &bytes(number, len), &tag(number)));
        for round in 0..10 * credit {
            assert_eq!(take(&ends, 1).bytes, bytes(round, len));
            send(&ends, 0, &bytes(round + credit, len), &tag(round));
        }
        take_all(10 * credit..11 * credit);
    }
}

pub(crate) fn asking_again_gives_the_same_place(ends: [End; 2]) {
    for len in [1, 40, 41, 5000] {
        let place = eventually(&ends, || ends[0].link.reserve(len));
        write(place, &bytes(1, len));
        let again = ends[0].link.reserve(len).unwrap().expect("the credit is still there");
        assert!(again.same_place(place));
        ends[0].link.commit(len, &tag(1)).unwrap();
        assert_eq!(take(&ends, 1).bytes, bytes(1, len));
    }
}

pub(crate) fn a_message_stays_until_it_is_released(ends: [End; 2]) {
    let [a, b] = &ends;
    for len in [8, 1000] {
        send(&ends, 0, &bytes(1, len), &tag(1));
        let message = eventually(&ends, || b.link.peek());
        let mut more = 0;
        while a.try_send(&bytes(2, len), &tag(2)).unwrap() {
            more += 1;
        }
        assert_eq!((read(message.payload), message.digest), (bytes(1, len), tag(1).digest));
        let again = b.link.peek().unwrap().expect("it was not released");
        assert!(again.payload.same_place(message.payload));
        assert_eq!((again.payload.len(), b.link.body()), (len, tag(1).body));
        b.link.release().unwrap();
        for _ in 0..more {
            assert_eq!(take(&ends, 1).tag, tag(2));
        }
    }
}

pub(crate) fn a_received_message_may_be_written(ends: [End; 2]) {
    for number in 0..20 {
        let len = if number % 2 == 0 { 24 } else { 3000 };
        send(&ends, 0, &bytes(number, len), &tag(number));
        let message = eventually(&ends, || ends[1].link.peek());
        write(message.payload, &bytes(!number, len));
        assert_eq!(read(message.payload), bytes(!number, len));
        ends[1].link.release().unwrap();
    }
}

/// As a chunk of an all-reduce goes: there, back with something added, and that is kept.
pub(crate) fn answers_go_back(ends: [End; 2]) {
    let b = &ends[1];
    for (number, len) in [8, 40, 41, 3000, b.link.limits().slot].into_iter().cycle().take(60).enumerate() {
        let (there, back) = (tag(number as u64), tag(!number as u64));
        send(&ends, 0, &bytes(number as u64, len), &there);
        let message = eventually(&ends, || b.link.peek());
        assert_eq!(message.digest, there.digest);
        let mut answer = read(message.payload);
        answer.iter_mut().for_each(|byte| *byte ^= 0x55);
        let place = eventually(&ends, || b.link.answer(len));
        write(place, &answer);
        b.link.commit(len, &back).unwrap();
        b.link.release().unwrap();
        let taken = take(&ends, 0);
        assert!(taken.bytes == answer && taken.tag == back, "{len} bytes, {number}th");
        // Another one in between, so that rooms come in another order.
        if number % 3 == 0 {
            send(&ends, 1, &bytes(7, 100), &back);
            assert_eq!(take(&ends, 0).bytes, bytes(7, 100));
        }
    }
}

/// However many messages one end has sent and kept, each can still have all its credit on their way.
pub(crate) fn credit_is_never_lost(ends: [End; 2]) {
    let credit = ends[0].link.limits().credit as u64;
    let len = 5000;
    let mut random = 1;
    for _ in 0..200 {
        random = mix(random);
        let from = (random % 2) as usize;
        // What was sent may take a while to be seen, and so may the credit for it.
        let mut left = credit;
        for number in 0..credit {
            send(&ends, from, &bytes(number, len), &tag(number));
            // Some are answered at once, from where they lie.
            if random >> number & 4 != 0 {
                let answered = read(eventually(&ends, || ends[1 - from].link.peek()).payload);
                write(eventually(&ends, || ends[1 - from].link.answer(len)), &answered);
                ends[1 - from].link.commit(len, &tag(number)).unwrap();
                ends[1 - from].link.release().unwrap();
                assert!(take(&ends, from).bytes == answered);
                left -= 1;
            }
        }
        for _ in 0..left {
            assert_eq!(take(&ends, 1 - from).bytes.len(), len);
        }
        for end in &ends {
            end.link.settled().unwrap();
        }
    }
}

pub(crate) fn both_directions_at_once(ends: [End; 2]) {
    let len = ends[0].link.limits().slot / 3;
    for number in 0..40 {
        for from in 0..2 {
            send(&ends, from, &bytes(2 * number + from as u64, len), &tag(number));
        }
        if number > 0 {
            for from in 0..2 {
                assert!(take(&ends, 1 - from).bytes == bytes(2 * number - 2 + from as u64, len));
            }
        }
    }
}

pub(crate) fn tags_come_with_their_messages(ends: [End; 2]) {
    for number in 0..50 {
        // Now and then the same tag as before, as the messages of one call have.
        let tag = tag(number / 3);
        send(&ends, 0, &bytes(number, number as usize), &tag);
        assert_eq!(take(&ends, 1).tag, tag);
    }
}

pub(crate) fn too_long_a_message_is_refused([a, b]: [End; 2]) {
    for len in [a.link.limits().slot + 1, usize::MAX] {
        assert_eq!(a.link.reserve(len).unwrap_err().kind(), Kind::Usage);
    }
    let long = vec![0; a.link.limits().slot];
    let terms = Terms::Read { whole: View::read(&long), size: Size::Huge };
    match a.link.lend(&[View::read(&long), View::read(&[1])], terms, &tag(1)) {
        Ok(lent) => assert_eq!(lent, Lent::Never),
        Err(error) => assert_eq!(error.kind(), Kind::Usage),
    }
    assert!(b.link.peek().unwrap().is_none());
}

pub(crate) fn what_was_not_reserved_is_not_sent([a, b]: [End; 2]) {
    assert_eq!(a.link.commit(8, &tag(1)).unwrap_err().kind(), Kind::Usage);
    a.link.reserve(8).unwrap().unwrap();
    assert_eq!(a.link.commit(50, &tag(1)).unwrap_err().kind(), Kind::Usage);
    assert_eq!(b.link.release().unwrap_err().kind(), Kind::Usage);
    assert!(b.link.peek().unwrap().is_none());
}

fn lend(end: &End, pieces: &[View<'_>], tag: &Tag) -> Lent {
    end.link
        .lend(
            pieces,
            Terms::Read { whole: pieces.first().copied().unwrap_or_else(View::empty), size: Size::Huge },
            tag,
        )
        .unwrap()
}

/// Lends a message to be read; says whether this kind of link does so.
fn lends(end: &End, source: &[u8]) -> bool {
    let lent = lend(end, &[View::read(source)], &tag(1));
    assert_ne!(lent, Lent::Later);
    lent == Lent::Yes
}

pub(crate) fn lent_messages_are_read_until_settled(ends: [End; 2]) {
    let [a, b] = &ends;
    let source = bytes(5, 10_000);
    if !lends(a, &source) {
        assert!(a.link.settled().unwrap() && b.link.peek().unwrap().is_none());
        return;
    }
    assert_eq!(take(&ends, 1).bytes, source);
    let pieces: [&[&[u8]]; 5] =
        [&[&source], &[&source[..1]], &[&source[..77], &[], &source[77..500]], &[&[]], &[]];
    for round in 0..10 {
        for pieces in pieces {
            let views: Vec<_> = pieces.iter().map(|piece| View::read(piece)).collect();
            assert_eq!(lend(a, &views, &tag(round)), Lent::Yes);
            send(&ends, 0, b"after", &tag(round));
            let message = eventually(&ends, || b.link.peek());
            assert_eq!((message.digest, b.link.body()), (tag(round).digest, tag(round).body));
            assert_eq!(read(message.payload), pieces.concat());
            if let [piece] = views[..] {
                assert!(message.payload.same_place(piece) && !message.payload.is_writable());
                assert!(!a.link.settled().unwrap());
            }
            b.link.release().unwrap();
            eventually(&ends, || Ok(a.link.settled()?.then_some(())));
            assert_eq!(take(&ends, 1).bytes, b"after");
        }
    }
}

pub(crate) fn what_was_lent_is_taken_back_on_failure(ends: [End; 2]) {
    let [a, b] = &ends;
    let source = bytes(5, 1000);
    for _ in 0..2 {
        if !lends(a, &source) {
            return;
        }
    }
    assert_eq!(read(eventually(&ends, || b.link.peek()).payload), source);
    a.link.fail();
    assert!(!a.link.settled().unwrap(), "it is still being read");
    assert_eq!(b.link.peek().unwrap_err().kind(), Kind::PeerLost);
    b.link.release().unwrap();
    assert!(a.link.settled().unwrap(), "nobody has begun to read the second");
    assert_eq!(b.link.peek().unwrap_err().kind(), Kind::PeerLost);
}

pub(crate) fn a_reader_that_fails_lets_go(ends: [End; 2]) {
    let [a, b] = &ends;
    let source = bytes(5, 1000);
    if !lends(a, &source) {
        return;
    }
    assert!(b.link.peek().unwrap().is_some());
    b.link.fail();
    assert!(a.link.settled().unwrap());

    // What it has not begun to read, it never will; that is the lender's to find out.
    assert!(lends(a, &source));
    assert_eq!(a.link.settled().unwrap_err().kind(), Kind::PeerLost);
    a.link.fail();
    assert!(a.link.settled().unwrap());
}

pub(crate) fn failure_is_news_after_the_last_message(ends: [End; 2]) {
    let [a, b] = &ends;
    send(&ends, 0, b"last words", &tag(1));
    eventually(&ends, || Ok(a.link.settled()?.then_some(())));
    a.link.fail();
    let (taken, error) = b.wait_for_loss();
    assert_eq!(taken.iter().map(|taken| &taken.bytes[..]).collect::<Vec<_>>(), [b"last words"]);
    assert_eq!(error.kind(), Kind::PeerLost);
    assert!(error.to_string().contains("after an error of its own"), "{error}");
    assert_eq!(b.link.alive().unwrap_err().kind(), Kind::PeerLost);
}

pub(crate) fn leaving_is_news_after_the_last_message(ends: [End; 2]) {
    send(&ends, 0, b"last words", &tag(1));
    eventually(&ends, || Ok(ends[0].link.settled()?.then_some(())));
    let [a, b] = ends;
    b.link.alive().unwrap();
    drop(a);
    let (taken, error) = b.wait_for_loss();
    assert_eq!(taken.iter().map(|taken| &taken.bytes[..]).collect::<Vec<_>>(), [b"last words"]);
    assert_eq!(error.kind(), Kind::PeerLost);
    assert_eq!(b.link.alive().unwrap_err().kind(), Kind::PeerLost);
}

pub(crate) fn a_failed_peer_gives_no_more_credit([a, b]: [End; 2]) {
    a.link.fail();
    let send_one = || b.wait(|b| Ok(b.try_send(&[1], &tag(1))?.then_some(())));
    let error = (0..).find_map(|_| send_one().err()).unwrap();
    assert_eq!(error.kind(), Kind::PeerLost);
}

pub(crate) fn nobody_sleeps_through_a_message([a, b]: [End; 2]) {
    const TURNS: u64 = 5000;
    thread::scope(|scope| {
        scope.spawn(move || {
            for turn in 0..TURNS {
                assert!(a.wait(|a| Ok(a.try_send(&turn.to_le_bytes(), &tag(turn))?.then_some(()))).is_ok());
                assert_eq!(a.wait(End::try_take).unwrap().tag, tag(!turn));
            }
            // The last one waits for the other to leave.
            assert_eq!(a.wait(End::try_take).unwrap_err().kind(), Kind::PeerLost);
        });
        scope.spawn(move || {
            for turn in 0..TURNS {
                assert_eq!(b.wait(End::try_take).unwrap().tag, tag(turn));
                assert!(b.wait(|b| Ok(b.try_send(&[], &tag(!turn))?.then_some(()))).is_ok());
            }
            eventually_settled(&b);
        });
    });
}

/// Waits until all that was sent has left this process.
fn eventually_settled(end: &End) {
    end.wait(|end| Ok(end.link.settled()?.then_some(()))).unwrap();
}

pub(crate) fn random_messages_between_threads([a, b]: [End; 2]) {
    thread::scope(|scope| {
        scope.spawn(move || exchange(&a, 0, MANY));
        scope.spawn(move || exchange(&b, 1, MANY));
    });
}

/// Sends and takes `count` messages of random lengths, as credit and arrival allow; this is end `me`.
pub(crate) fn exchange(end: &End, me: u64, count: u64) {
    let slot = end.link.limits().slot;
    let (mut sent, mut taken) = (0, 0);
    let mut place = vec![0; slot];
    while taken < count || sent < count {
        end.wait(|end| {
            let mut moved = false;
            if sent < count {
                let number = 2 * sent + me;
                let message = bytes(number, random_len(number, slot));
                let gone = match mix(number) % 2 {
                    0 => end.try_send(&message, &tag(number))?,
                    _ => end.link.send(View::read(&message), &tag(number))?,
                };
                if gone {
                    (sent, moved) = (sent + 1, true);
                }
            }
            // Who asks for more than there are may hear that the peer has left.
            let number = 2 * taken + 1 - me;
            let place = &mut place[..random_len(number, slot)];
            if taken < count
                && let Some(message) = match mix(number) % 8 {
                    0..4 => end.try_receive(place, &tag(number))?,
                    4 if place.len() > 1 => end.try_receive(&mut place[1..], &tag(number))?,
                    _ => end.try_take()?,
                }
            {
                let right = message.bytes == bytes(number, random_len(number, slot));
                assert!(right && message.tag == tag(number), "message {taken} was changed");
                (taken, moved) = (taken + 1, true);
            }
            Ok(moved.then_some(()))
        })
        .unwrap();
    }
    eventually_settled(end);
}

/// Mostly small, now and then up to a whole slot.
fn random_len(number: u64, slot: usize) -> usize {
    let random = mix(!number);
    let limit = match random % 128 {
        0 => slot + 1,
        1..=9 => 4097,
        _ => 100,
    };
    (random >> 8) as usize % limit
}
