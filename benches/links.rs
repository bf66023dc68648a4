//! What crossing from one core to another costs, for each kind of link.
//!
//! `cargo bench --bench links` prints half a round trip and what one direction carries, with a copy in and
//! a copy out, and beside them the round trip of a cache line between the two cores, which bounds both.

mod support;

use std::hint::{black_box, spin_loop};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use kolo::health::Deadline;
use kolo::kernel;
use kolo::memory::{Bell, View};
use kolo::transport::local::Hub;
use kolo::transport::{Link, Message, Tag, shm, tcp};
use support::{line_round_trip, pin, time};

const TAG: Tag = Tag { digest: 7, body: [1, 2, 3, 4] };

/// What a bandwidth is measured with: more than the caches of a core hold.
const VOLUME: usize = 64 << 20;

fn local() -> [Box<dyn Link>; 2] {
    let hub = Hub::new();
    [(0, 1), (1, 0)].map(|(me, peer)| hub.link(0, me, peer, 0, &Bell::new().expect("a bell")))
}

fn shm() -> [Box<dyn Link>; 2] {
    let (low, high) = UnixStream::pair().expect("a pair of sockets");
    let link = |stream, lower| {
        let bell = Bell::new().expect("a bell");
        shm::link_over(stream, lower, &bell, Deadline::after(None)).expect("a link")
    };
    std::thread::scope(|scope| {
        let low = scope.spawn(move || link(low, true));
        let high = link(high, false);
        [low.join().expect("the other end"), high]
    })
}

fn tcp() -> [Box<dyn Link>; 2] {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let far = listener.accept().expect("a connection").0;
    [near, far].map(|stream| tcp::link_over(stream, None).expect("a link"))
}

fn reserve(link: &dyn Link, len: usize) -> View<'_> {
    loop {
        match link.reserve(len).expect("the peer is there") {
            Some(place) => return place,
            None => spin_loop(),
        }
    }
}

fn peek(link: &dyn Link) -> Message<'_> {
    loop {
        match link.peek().expect("the peer is there") {
            Some(message) => return message,
            None => spin_loop(),
        }
    }
}

fn send(link: &dyn Link, bytes: &[u8]) {
    kernel::copy(&[reserve(link, bytes.len())], View::read(bytes));
    link.commit(bytes.len(), &TAG).expect("the peer is there");
}

fn receive(link: &dyn Link, bytes: &mut [u8]) {
    kernel::copy(&[View::write(bytes)], peek(link).payload);
    link.release().expect("it was peeked");
    black_box(bytes);
}

/// Nanoseconds from one rank's send to the other's receive: (median, best).
fn latency([near, far]: [Box<dyn Link>; 2], len: usize) -> (f64, f64) {
    let play = move |link: Box<dyn Link>, core: usize| {
        pin(core);
        let mut bytes = vec![1; len];
        time(|| match core {
            0 => {
                send(&*link, &bytes);
                receive(&*link, &mut bytes);
            }
            _ => {
                receive(&*link, &mut bytes);
                send(&*link, &bytes);
            }
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(move || play(far, 1));
        let (median, best) = play(near, 0);
        (median / 2.0, best / 2.0)
    })
}

/// Gigabytes per second in one direction, from a buffer of 4 MiB to another.
fn bandwidth([near, far]: [Box<dyn Link>; 2], len: usize) -> f64 {
    const BUFFER: usize = 4 << 20;
    let messages = VOLUME / len;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(1);
            let source = vec![1; BUFFER];
            (0..messages).for_each(|message| send(&*far, &source[message * len % BUFFER..][..len]));
            // Stays until all is received.
            peek(&*far);
        });
        pin(0);
        let mut target = vec![0; BUFFER];
        let begun = Instant::now();
        (0..messages).for_each(|message| receive(&*near, &mut target[message * len % BUFFER..][..len]));
        let seconds = begun.elapsed().as_secs_f64();
        send(&*near, &[]);
        (messages * len) as f64 / seconds / 1e9
    })
}

fn main() {
    println!("a cache line's round trip: {:.0} ns", line_round_trip());
    println!("{:>6} {:>8} {:>10} {:>10} {:>8}", "link", "bytes", "median ns", "best ns", "GB/s");
    for (name, pair) in [("local", local as fn() -> _), ("shm", shm), ("tcp", tcp)] {
        let slot = pair()[0].limits().slot;
        let lengths = [8, 32, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 512 << 10];
        for len in lengths.into_iter().filter(|&len| len <= slot) {
            let (median, best) = latency(pair(), len);
            let mut rates = [(); 9].map(|()| bandwidth(pair(), len.max(256)));
            rates.sort_by(f64::total_cmp);
            println!("{name:>6} {len:>8} {median:>10.0} {best:>10.0} {:>8.1}", rates[rates.len() / 2]);
        }
    }
    println!("a cache line's round trip: {:.0} ns", line_round_trip());
}
