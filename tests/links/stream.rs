//! What is peculiar to links over a stream: TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

use kolo::Kind as ErrorKind;
use kolo::memory::{Bell, View};
use kolo::transport::{Lent, Received, Size, Terms, tcp};

use crate::end::{End, bytes, eventually, read, send, tag, take};
use crate::kinds::{Kind, Tcp};

/// A link, and the bare connection at its other end.
fn with_bare_peer() -> (End, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let link = tcp::link_over(listener.accept().unwrap().0, None).unwrap();
    (End::new(link, Bell::new().unwrap()), peer)
}

/// Lends a message to be read, if there is credit.
fn lend(end: &End, pieces: &[View<'_>]) -> bool {
    end.link
        .lend(
            pieces,
            Terms::Read { whole: pieces.first().copied().unwrap_or_else(View::empty), size: Size::Huge },
            &tag(1),
        )
        .unwrap()
        == Lent::Yes
}

/// What a link sends for one message.
fn recorded(payload: &[u8]) -> Vec<u8> {
    let (end, mut peer) = with_bare_peer();
    assert!(end.try_send(payload, &tag(7)).unwrap());
    let mut frame = vec![0; 48 + payload.len().next_multiple_of(16)];
    peer.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn a_reader_who_does_not_read_holds_the_writer_up() {
    let ends = Tcp::pair();
    let [a, b] = &ends;
    let slot = a.link.limits().slot;
    let mut sent = 0;
    while a.try_send(&bytes(sent, slot), &tag(sent)).unwrap() {
        sent += 1;
        assert!(sent < 1000, "nothing bounds what waits");
    }
    assert!(sent >= a.link.limits().credit as u64);
    assert!(!a.link.settled().unwrap() && a.link.watch().unwrap().write);
    for number in 0..sent {
        let message = take(&ends, 1);
        assert!(message.bytes == bytes(number, slot) && message.tag == tag(number));
    }
    assert!(a.link.settled().unwrap() && !a.link.watch().unwrap().write);
    assert!(b.link.peek().unwrap().is_none());
}

#[test]
fn lent_messages_cross_from_where_they_lie() {
    let ends = Tcp::pair();
    let [a, b] = &ends;
    let source = bytes(5, 500_000);
    let (front, back) = source.split_at(77);
    let cuts: [&[&[u8]]; 6] = [&[&source], &[front, back], &[front, &[], back], &[&[]], &[], &[&source[..1]]];
    let mut lent = 0;
    while lend(a, &cuts[lent % 6].iter().map(|cut| View::read(cut)).collect::<Vec<_>>()) {
        lent += 1;
        assert!(lent < 1000, "nothing bounds what is lent");
    }
    assert!(!a.link.settled().unwrap());
    for number in 0..lent {
        assert!(take(&ends, 1).bytes == cuts[number % 6].concat());
    }
    assert!(a.link.settled().unwrap());
    assert!(b.link.peek().unwrap().is_none());
}

#[test]
fn a_message_of_very_many_pieces_crosses() {
    let ends = Tcp::pair();
    let source = bytes(3, 5000);
    let pieces: Vec<_> = source.chunks(3).map(View::read).collect();
    assert!(lend(&ends[0], &pieces));
    assert_eq!(take(&ends, 1).bytes, source);
}

#[test]
fn a_received_message_may_be_passed_on_and_released_at_once() {
    let ends = Tcp::pair();
    for number in 0..20 {
        send(&ends, 0, &bytes(number, 100_000), &tag(number));
        let message = eventually(&ends, || ends[1].link.peek());
        assert_eq!(message.payload.as_ptr() as usize % 16, 0);
        eventually(&ends, || {
            let terms = Terms::Read { whole: message.payload, size: Size::Huge };
            let lent = ends[1].link.lend(&[message.payload], terms, &tag(number))?;
            Ok((lent == Lent::Yes).then_some(()))
        });
        ends[1].link.release().unwrap();
        send(&ends, 0, &bytes(!number, 100_000), &tag(number));
        assert!(take(&ends, 0).bytes == bytes(number, 100_000));
        take(&ends, 1);
    }
}

#[test]
fn whatever_the_cut_messages_come_whole() {
    let frames: Vec<Vec<u8>> = [0, 1, 16, 100].map(|len| recorded(&bytes(len as u64, len))).into();
    let stream = frames.concat();
    for step in [1, 7, 47, 48, 49, 64] {
        let (end, mut peer) = with_bare_peer();
        let mut come = Vec::new();
        for piece in stream.chunks(step) {
            peer.write_all(piece).unwrap();
            while let Some(taken) = end.try_take().unwrap() {
                come.push(taken);
            }
        }
        while come.len() < 4 {
            come.extend(end.try_take().unwrap());
        }
        for (taken, len) in come.iter().zip([0, 1, 16, 100]) {
            assert_eq!((&taken.bytes, taken.tag), (&bytes(len as u64, len), tag(7)));
        }
    }
}

#[test]
fn whatever_the_cut_messages_come_to_their_places() {
    let lens = [1, 16, 5000, 100, 70_000];
    let frames: Vec<Vec<u8>> = lens.map(|len| recorded(&bytes(len as u64, len))).into();
    let stream = frames.concat();
    for step in [1, 7, 47, 48, 49, 64, 4096, stream.len()] {
        let (end, mut peer) = with_bare_peer();
        let mut pieces = stream.chunks(step);
        for len in lens {
            let mut place = vec![0; len];
            let taken = loop {
                match end.try_receive(&mut place, &tag(7)).unwrap() {
                    Some(taken) => break taken,
                    None => {
                        // While the socket's buffers hold more, there is nothing to be written.
                        peer.write_all(pieces.next().unwrap_or_default()).unwrap();
                    }
                }
            };
            assert!(taken.bytes == bytes(len as u64, len) && taken.tag == tag(7), "{len} bytes by {step}");
        }
        assert!(end.link.peek().unwrap().is_none());
    }
}

#[test]
fn another_message_than_is_received_is_there_to_be_peeked() {
    let lens = [0, 3, 17, 100_000, 16];
    let stream = lens.map(|len| recorded(&bytes(len as u64, len))).concat();
    for (wanted, number) in [(200_000, 7), (1, 7), (0, 7), (3, 8), (100_000, 7)] {
        let (end, mut peer) = with_bare_peer();
        let writer = std::thread::spawn({
            let stream = stream.clone();
            move || peer.write_all(&stream).map(|()| peer)
        });
        let mut place = vec![0; wanted];
        for len in lens {
            let taken = loop {
                if let Some(taken) = end.try_receive(&mut place, &tag(number)).unwrap() {
                    break taken;
                }
            };
            assert!(taken.bytes == bytes(len as u64, len), "{len} bytes instead of {wanted}");
            assert_eq!(taken.tag, tag(7));
        }
        writer.join().unwrap().unwrap();
    }
}

#[test]
fn a_message_that_comes_to_its_place_is_not_peeked() {
    let frame = recorded(&bytes(1, 1000));
    for cut in [48, 49, 700, frame.len() - 1] {
        let (end, mut peer) = with_bare_peer();
        let mut place = vec![0; 1000];
        assert_eq!(end.try_receive(&mut place, &tag(7)).unwrap(), None);
        peer.write_all(&frame[..cut]).unwrap();
        while place[..(cut - 48).min(1000)] != bytes(1, 1000)[..(cut - 48).min(1000)] {
            assert_eq!(end.try_receive(&mut place, &tag(7)).unwrap(), None);
        }
        assert!(end.link.peek().unwrap().is_none());
        peer.write_all(&frame[cut..]).unwrap();
        while end.try_receive(&mut place, &tag(7)).unwrap().is_none() {
            assert!(end.link.peek().unwrap().is_none());
        }
        assert!(place == bytes(1, 1000));
    }
}

#[test]
fn what_no_rank_sends_is_refused() {
    let frame = recorded(b"payload");
    // Of the length, which is just beyond the longest, and of what else a head has.
    let beyond = (Tcp::pair()[0].link.limits().slot >> 16) as u8;
    for (at, byte) in [(0, 9), (3, 1), (6, beyond), (7, 0xff)] {
        let mut garbled = frame.clone();
        garbled[at] = byte;
        let (end, mut peer) = with_bare_peer();
        peer.write_all(&garbled).unwrap();
        let error = loop {
            match end.link.peek() {
                Ok(message) => assert!(message.is_none(), "byte {at}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}

#[test]
fn a_connection_that_ends_in_a_message_is_a_loss() {
    let frame = recorded(&bytes(1, 1000));
    for len in [0, 1, 47, 48, 500, frame.len() - 1] {
        let (end, mut peer) = with_bare_peer();
        peer.write_all(&frame[..len]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        if len % 2 == 0 {
            let mut place = vec![0; 1000];
            while end.link.receive(View::write(&mut place), tag(7).digest).unwrap() == Received::Later {}
        }
        let (taken, error) = end.wait_for_loss();
        assert!(taken.is_empty());
        assert_eq!(error.kind(), ErrorKind::PeerLost);
        assert!(error.to_string().contains("without a word"), "{error}");
    }
}

#[test]
fn who_fails_in_a_message_sends_nothing_that_could_be_taken_for_one() {
    let ends = Tcp::pair();
    let [a, b] = &ends;
    let long = bytes(1, a.link.limits().slot);
    let mut sent = 0;
    while lend(a, &[View::read(&long)]) {
        sent += 1;
    }
    a.link.fail();
    assert!(a.link.settled().unwrap(), "nothing is read any more");
    assert_eq!(a.link.peek().unwrap_err().kind(), ErrorKind::PeerLost);
    let (taken, error) = b.wait_for_loss();
    assert!(taken.len() < sent && taken.iter().all(|taken| taken.bytes == long));
    assert_eq!(error.kind(), ErrorKind::PeerLost);
}

#[test]
fn what_came_before_a_loss_is_read_after_a_failed_write() {
    let [a, b] = Tcp::pair();
    assert!(b.try_send(b"last words", &tag(1)).unwrap());
    drop(b);
    let lost = (0..).find_map(|_| a.try_send(&[0; 1000], &tag(2)).err()).unwrap();
    assert_eq!(lost.kind(), ErrorKind::PeerLost);
    assert!(a.link.settled().is_err(), "what was not written is not forgotten");
    let message = a.link.peek().unwrap().expect("it came before");
    assert_eq!(read(message.payload), b"last words");
    a.link.release().unwrap();
    assert!(a.link.peek().unwrap_err().to_string().contains("it has left"));
}
