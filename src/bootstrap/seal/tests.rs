//! What records carry, and what is refused.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::*;

/// A wait this long means that a test will never end.
const NEVER: Duration = Duration::from_secs(30);

fn secret() -> Secret {
    Secret::new(b"known to the ranks of this job").unwrap()
}

/// Two ends' sessions, as each says what was said before.
fn sessions(said: [&[u8]; 2], secrets: [&Secret; 2]) -> Option<[Session; 2]> {
    let (opening, share) = Opening::new(secrets[0], said[0]).unwrap();
    let (theirs, share) = Opening::answer(secrets[1], said[1], &share).unwrap()?;
    Some([opening.finish(&share)?, theirs])
}

fn sockets() -> [TcpStream; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nodelay(true).unwrap();
    [near, listener.accept().unwrap().0]
}

/// A sealed end, and the bare other end with what belongs to it.
fn half() -> (Sealed, TcpStream, Session) {
    let secret = secret();
    let [mine, theirs] = sessions([b"said"; 2], [&secret; 2]).unwrap();
    let [near, far] = sockets();
    (Sealed::new(near, mine), far, theirs)
}

fn pair() -> [Sealed; 2] {
    let (near, far, session) = half();
    [near, Sealed::new(far, session)]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Reads so many bytes, in stretches of these lengths over and over.
fn read(sealed: &Sealed, len: usize, cuts: &[usize]) -> Result<Vec<u8>, Errno> {
    let mut all = vec![0; len];
    let (mut filled, mut cuts, begun) = (0, cuts.iter().cycle(), Instant::now());
    while filled < len {
        assert!(begun.elapsed() < NEVER, "{filled} of {len} bytes have come");
        let mut rest = &mut all[filled..];
        let mut stretches = Vec::new();
        for _ in 0..3 {
            let (stretch, later) = rest.split_at_mut(rest.len().min(*cuts.next().unwrap()));
            stretches.push(IoSliceMut::new(stretch));
            rest = later;
        }
        match sealed.read(&mut stretches) {
            Ok(0) => return Err(Errno::PIPE),
            Ok(count) => filled += count,
            Err(Errno::AGAIN) => std::thread::yield_now(),
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// What one write puts on the wire.
fn recorded(payload: &[u8]) -> (Vec<u8>, Session) {
    let (near, mut far, session) = half();
    assert_eq!(near.write(&[IoSlice::new(payload)]).unwrap(), payload.len());
    drop(near);
    let mut wire = Vec::new();
    far.read_to_end(&mut wire).unwrap();
    (wire, session)
}

#[test]
fn bytes_cross_whatever_the_stretches() {
    let [near, far] = pair();
    let sent = &bytes(1_000_000);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // 48 bytes, a longest record and a little more: some gathered, some from where they lie.
            let (head, rest) = sent.split_at(48);
            let mut rest = [head, &rest[..MOST], &[], &rest[MOST..70_000], &rest[70_000..]].to_vec();
            while !rest.is_empty() {
                let stretches: Vec<_> = rest.iter().map(|stretch| IoSlice::new(stretch)).collect();
                let mut count = match near.write(&stretches) {
                    Ok(count) => count,
                    Err(Errno::AGAIN) => 0,
                    Err(errno) => panic!("{errno}"),
                };
                while rest.first().is_some_and(|first| count >= first.len()) {
                    count -= rest.remove(0).len();
                }
                if let Some(first) = rest.first_mut() {
                    *first = &first[count..];
                }
            }
            while near.flush() == Err(Errno::AGAIN) {}
            assert!(!near.unsent());
        });
        assert!(read(&far, sent.len(), &[1, 48, 100_000, 0, 7]).unwrap() == *sent);
    });
}

#[test]
fn a_reader_who_does_not_read_holds_the_writer_up() {
    let [near, far] = pair();
    let sent = bytes(100_000);
    let mut written = 0;
    while let Ok(count) = near.write(&[IoSlice::new(&sent)]) {
        written += count;
        assert!(written < 1 << 30, "nothing bounds what waits");
    }
    assert!(near.unsent() && near.flush() == Err(Errno::AGAIN));
    read(&far, written - BUFFER, &[64 << 10]).unwrap();
    // What waited has room now.
    near.flush().unwrap();
    assert!(!near.unsent());
    read(&far, BUFFER, &[64 << 10]).unwrap();
}

#[test]
fn keys_are_renewed_and_records_go_on() {
    let [near, far] = pair();
    for number in 0..3 * RECORDS_PER_KEY as usize {
        for (from, to) in [(&near, &far), (&far, &near)] {
            let sent = bytes(number);
            assert_eq!(from.write(&[IoSlice::new(&sent)]).unwrap(), number);
            assert_eq!(read(to, number, &[5]).unwrap(), sent);
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_refused_for_good() {
    for bit in 0..(HEAD + 10 + TAG) * 8 {
        let (mut wire, session) = recorded(&bytes(10));
        wire[bit / 8] ^= 1 << (bit % 8);
        // Enough behind it, should it be the length.
        wire.resize(1 << 17, 0);
        let [near, mut far] = sockets();
        let sealed = Sealed::new(near, session);
        std::thread::scope(|scope| {
            scope.spawn(move || far.write_all(&wire));
            let mut place = [0x55; 10];
            let refused = loop {
                match sealed.read(&mut [IoSliceMut::new(&mut place)]) {
                    Err(Errno::AGAIN) => std::thread::yield_now(),
                    outcome => break outcome,
                }
            };
            assert_eq!(refused, Err(Errno::BADMSG), "bit {bit}");
            assert_eq!(sealed.read(&mut [IoSliceMut::new(&mut place)]), Err(Errno::BADMSG));
            // The writer need not wait.
            drop(sealed);
        });
    }
}

#[test]
fn records_left_out_doubled_or_of_another_session_are_refused() {
    let (wire, session) = recorded(&bytes(10));
    let (other, _) = recorded(&bytes(10));
    let [near, mut far] = sockets();
    let sealed = Sealed::new(near, session);
    far.write_all(&[&wire[..], &wire].concat()).unwrap();
    assert_eq!(read(&sealed, 10, &[10]).unwrap(), bytes(10));
    assert_eq!(read(&sealed, 10, &[10]), Err(Errno::BADMSG));

    let (near, mut far, _) = half();
    far.write_all(&other).unwrap();
    assert_eq!(read(&near, 10, &[10]), Err(Errno::BADMSG));

    // The first of two left out.
    let (near, mut far, session) = half();
    near.write(&[IoSlice::new(b"one")]).unwrap();
    near.write(&[IoSlice::new(b"two")]).unwrap();
    let mut wire = [0; 2 * (HEAD + 3 + TAG)];
    far.read_exact(&mut wire).unwrap();
    let [near, mut far] = sockets();
    let sealed = Sealed::new(near, session);
    far.write_all(&wire[wire.len() / 2..]).unwrap();
    assert_eq!(read(&sealed, 3, &[3]), Err(Errno::BADMSG));
}

#[test]
fn lengths_that_no_record_has_are_refused_at_once() {
    for len in [0, TAG, MOST + TAG + 1, 0xffff] {
        let (near, mut far, _) = half();
        far.write_all(&(len as u16).to_le_bytes()).unwrap();
        assert_eq!(read(&near, 1, &[1]), Err(Errno::BADMSG), "{len}");
    }
}

#[test]
fn a_record_cut_off_is_the_end_and_no_bytes() {
    let (wire, session) = recorded(&bytes(100));
    let [near, mut far] = sockets();
    far.write_all(&wire[..wire.len() - 1]).unwrap();
    drop(far);
    assert_eq!(read(&Sealed::new(near, session), 1, &[1]), Err(Errno::PIPE));
}

#[test]
fn a_session_holds_for_one_secret_and_one_conversation() {
    let (secret, other) = (secret(), Secret::random().unwrap());
    assert!(sessions([b"said"; 2], [&secret; 2]).is_some());
    assert!(sessions([b"said", b"sand"], [&secret; 2]).is_none());
    assert!(sessions([b"said"; 2], [&secret, &other]).is_none());
    // A share answered twice gives two sessions, and each only what answers it.
    let (opening, share) = Opening::new(&secret, b"said").unwrap();
    let (_, first) = Opening::answer(&secret, b"said", &share).unwrap().unwrap();
    let (_, second) = Opening::answer(&secret, b"said", &share).unwrap().unwrap();
    assert_ne!(first, second);
    assert!(opening.finish(&share).is_none(), "a share is no answer to itself");
    let (opening, _) = Opening::new(&secret, b"said").unwrap();
    assert!(opening.finish(&first).is_none(), "an answer to another share");
}

#[test]
fn nothing_of_it_is_printed() {
    let printed = format!("{:?}", pair()[0]);
    assert!(printed.starts_with("Sealed { stream: TcpStream") && printed.ends_with(", .. }"), "{printed}");
}
