//! The protocols of shared memory under loom, which tries every interleaving and every value that the
//! memory model lets a load return.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test models`
//!
//! The files under test are the library's own; here loom's atomics stand in their `sys::atomic`.
#![cfg(loom)]
#![allow(dead_code, reason = "each protocol is used in part")]

mod sys {
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    }
}

mod error {
    pub(crate) use kolo::{Error, Kind, Result};
}

#[path = "../src/memory/doorbell.rs"]
mod doorbell;
#[path = "../src/transport/fifo.rs"]
mod fifo;
#[path = "../src/transport/lease.rs"]
mod lease;
#[path = "../src/transport/pool.rs"]
mod pool;
#[path = "../src/transport/presence.rs"]
mod presence;
#[path = "../src/health/ring.rs"]
mod ring;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use doorbell::{Asleep, Doorbell};
use fifo::{Reader, Writer};
use lease::Lease;
use pool::Pool;
use presence::Presence;

/// Explores every interleaving with at most so many preemptions: where bugs show, long before all of them.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A futex as the kernel makes it: the comparison and falling asleep are one step for whoever wakes.
struct Futex {
    queue: Mutex<()>,
    sleeper: Condvar,
}

impl Futex {
    fn new() -> Self {
        Self { queue: Mutex::new(()), sleeper: Condvar::new() }
    }

    fn wait(&self, word: &AtomicU32, value: u32) {
        let mut queue = self.queue.lock().unwrap();
        while word.load(Ordering::Relaxed) == value {
            queue = self.sleeper.wait(queue).unwrap();
        }
    }

    fn wake(&self) {
        let _queue = self.queue.lock().unwrap();
        self.sleeper.notify_one();
    }
}

/// A rank's bell, and what its peers publish.
struct Shared {
    doorbell: Doorbell,
    futex: Futex,
    published: AtomicU64,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { doorbell: Doorbell::default(), futex: Futex::new(), published: AtomicU64::new(0) })
    }

    fn publish(&self, barrier: impl FnOnce()) {
        self.published.fetch_add(1, Ordering::Release);
        match self.doorbell.ring(barrier) {
            None => {}
            Some(Asleep::Futex) => self.futex.wake(),
            Some(Asleep::Poll) => unreachable!(),
        }
    }

    fn sleep_until(&self, count: u64, barrier: impl Fn()) {
        let come = || self.published.load(Ordering::Acquire) == count;
        while !come() {
            self.doorbell.announce(Asleep::Futex, &barrier);
            if !come() {
                self.futex.wait(self.doorbell.word(), Asleep::Futex as u32);
            }
            self.doorbell.rise();
        }
    }
}

/// A sleeper and as many publishers; `barrier` stands for both sides' barriers.
fn sleeper_and_publishers(publishers: u64, barrier: fn()) {
    explore(4, move || {
        let shared = Shared::new();
        let publishers: Vec<_> = (0..publishers)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.publish(barrier))
            })
            .collect();
        shared.sleep_until(publishers.len() as u64, barrier);
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

/// What a `membarrier` and the publisher's place in it amount to: a fence on both sides.
fn membarrier() {
    fence(Ordering::SeqCst);
}

#[test]
fn no_wake_is_lost() {
    sleeper_and_publishers(1, membarrier);
}

#[test]
fn no_wake_is_lost_among_two_publishers() {
    sleeper_and_publishers(2, membarrier);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_barriers_a_wake_is_lost() {
    sleeper_and_publishers(1, || {});
}

/// One direction of a link. Loom reports every access to a slot that the protocol does not keep apart.
struct Ring<const SLOTS: usize> {
    numbers: [AtomicU64; SLOTS],
    slots: [UnsafeCell<u64>; SLOTS],
    released: AtomicU64,
}

impl<const SLOTS: usize> Ring<SLOTS> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            numbers: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| UnsafeCell::new(0)),
            released: AtomicU64::new(0),
        })
    }

    fn send(&self, writer: &Writer<SLOTS>, message: u64) -> bool {
        let Some(slot) = writer.room(&self.released).unwrap() else { return false };
        // SAFETY: what loom checks.
        self.slots[slot].with_mut(|place| unsafe { *place = message });
        writer.publish(&self.numbers[slot], true);
        true
    }

    /// Takes a message, and writes where it lay, as a receiver may.
    fn take(&self, reader: &Reader<SLOTS>) -> Option<u64> {
        self.take_quietly(reader).map(|(message, _)| message)
    }

    /// And whether it said so.
    fn take_quietly(&self, reader: &Reader<SLOTS>) -> Option<(u64, bool)> {
        let slot = reader.slot();
        if !reader.arrived(&self.numbers[slot]) {
            return None;
        }
        // SAFETY: what loom checks.
        let message = self.slots[slot].with_mut(|place| unsafe { std::mem::replace(&mut *place, u64::MAX) });
        Some((message, reader.release(&self.released, false)))
    }
}

#[test]
fn messages_cross_whole_and_in_order_past_the_rings_end() {
    // Twice around, and one more.
    messages_cross::<2>(4, 5);
}

#[test]
fn messages_cross_where_only_every_other_release_is_said() {
    messages_cross::<4>(3, 6);
}

fn messages_cross<const SLOTS: usize>(preemptions: usize, messages: u64) {
    explore(preemptions, move || {
        let ring = Ring::<SLOTS>::new();
        let sender = {
            let ring = ring.clone();
            thread::spawn(move || {
                let writer = Writer::new();
                for message in 1..=messages {
                    while !ring.send(&writer, message) {
                        thread::yield_now();
                    }
                }
            })
        };
        let reader = Reader::new();
        for expected in 1..=messages {
            let message = loop {
                match ring.take(&reader) {
                    Some(message) => break message,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(message, expected);
        }
        assert_eq!(ring.take(&reader), None);
        sender.join().unwrap();
    });
}

#[test]
fn a_rank_asleep_for_credit_or_messages_is_woken() {
    a_sleeper_is_woken::<2>(4);
}

#[test]
fn a_rank_asleep_for_credit_is_woken_where_only_every_other_release_is_said() {
    a_sleeper_is_woken::<4>(3);
}

fn a_sleeper_is_woken<const SLOTS: usize>(preemptions: usize) {
    explore(preemptions, || {
        let (ring, shared) = (Ring::<SLOTS>::new(), [Shared::new(), Shared::new()]);
        // Looks at the ring; asleep on its own bell between looks; rings the other's after a success that it says.
        let step = |me: usize, shared: &[Arc<Shared>; 2], look: &mut dyn FnMut() -> Option<bool>| {
            let says = loop {
                if let Some(says) = look() {
                    break says;
                }
                let bell = &shared[me];
                bell.doorbell.announce(Asleep::Futex, membarrier);
                if let Some(says) = look() {
                    bell.doorbell.rise();
                    break says;
                }
                bell.futex.wait(bell.doorbell.word(), Asleep::Futex as u32);
                bell.doorbell.rise();
            };
            if says {
                shared[1 - me].publish(membarrier);
            }
        };
        let sender = {
            let (ring, shared) = (ring.clone(), shared.clone());
            thread::spawn(move || {
                let writer = Writer::new();
                for message in 1..=SLOTS as u64 + 1 {
                    step(0, &shared, &mut || ring.send(&writer, message).then_some(true));
                }
            })
        };
        let reader = Reader::new();
        for expected in 1..=SLOTS as u64 + 1 {
            step(1, &shared, &mut || {
                let (message, says) = ring.take_quietly(&reader)?;
                assert_eq!(message, expected);
                Some(says)
            });
        }
        sender.join().unwrap();
    });
}

#[test]
fn the_last_message_comes_before_the_news_of_leaving() {
    explore(4, || {
        let shared = Arc::new((Ring::<2>::new(), Presence::default()));
        let sender = {
            let shared = shared.clone();
            thread::spawn(move || {
                assert!(shared.0.send(&Writer::new(), 7));
                shared.1.leave();
            })
        };
        let (ring, presence) = &*shared;
        let reader = Reader::new();
        let message = loop {
            if let Some(message) = ring.take(&reader) {
                break message;
            }
            presence.check_after(|| reader.arrived(&ring.numbers[reader.slot()])).unwrap();
            thread::yield_now();
        };
        assert_eq!(message, 7);
        sender.join().unwrap();
        let nothing_more = || reader.arrived(&ring.numbers[reader.slot()]);
        presence.check_after(nothing_more).unwrap_err();
    });
}

const BUFFERS: u32 = 4;

/// A rank's end of two rings whose messages are numbers of buffers.
struct Exchange {
    /// From the lower rank, from the higher.
    rings: [Arc<Ring<2>>; 2],
    returned: [AtomicU64; 2],
    buffers: [UnsafeCell<u64>; BUFFERS as usize],
}

struct Trader {
    me: usize,
    shared: Arc<Exchange>,
    pool: Pool<BUFFERS, 2>,
    writer: Writer<2>,
    reader: Reader<2>,
}

impl Trader {
    fn pair() -> [Self; 2] {
        let shared = Arc::new(Exchange {
            rings: [Ring::new(), Ring::new()],
            returned: [AtomicU64::new(0), AtomicU64::new(0)],
            buffers: std::array::from_fn(|_| UnsafeCell::new(0)),
        });
        [0, 1].map(|me| Self {
            me,
            shared: shared.clone(),
            pool: Pool::new(me == 1),
            writer: Writer::new(),
            reader: Reader::new(),
        })
    }

    fn send(&self, message: u64) {
        let Exchange { rings, returned, buffers } = &*self.shared;
        let buffer = loop {
            if let Some(buffer) = self.pool.next(&returned[1 - self.me]).unwrap() {
                break buffer;
            }
            thread::yield_now();
        };
        // SAFETY: what loom checks.
        buffers[buffer as usize].with_mut(|place| unsafe { *place = message });
        while !rings[self.me].send(&self.writer, u64::from(buffer)) {
            thread::yield_now();
        }
        self.pool.sent(buffer);
    }

    fn take(&self) -> u64 {
        let Exchange { rings, returned, buffers } = &*self.shared;
        let buffer = loop {
            match rings[1 - self.me].take(&self.reader) {
                Some(buffer) => break buffer as u32,
                None => thread::yield_now(),
            }
        };
        assert!(self.pool.could_come(buffer));
        // SAFETY: what loom checks.
        let message = buffers[buffer as usize].with_mut(|place| unsafe { *place });
        self.pool.keep(buffer);
        let released = &rings[self.me].released;
        let on_their_way = |look: bool| self.writer.on_their_way(look.then_some(released));
        self.pool.settle([&returned[self.me], &returned[1 - self.me]], on_their_way).unwrap();
        message
    }
}

#[test]
fn a_buffer_has_one_owner_in_an_exchange() {
    explore(3, || {
        let [a, b] = Trader::pair();
        let other = thread::spawn(move || {
            for round in 1..=3 {
                b.send(10 * round);
                assert_eq!(b.take(), round);
            }
        });
        for round in 1..=3 {
            a.send(round);
            assert_eq!(a.take(), 10 * round);
        }
        other.join().unwrap();
    });
}

#[test]
fn buffers_come_back_where_messages_go_one_way() {
    explore(3, || {
        let [a, b] = Trader::pair();
        let other = thread::spawn(move || (1..=4).for_each(|message| assert_eq!(b.take(), message)));
        (1..=4).for_each(|message| a.send(message));
        other.join().unwrap();
    });
}

/// A lender's own memory, the lease of it, and whether the lender is still there.
struct Lent {
    memory: UnsafeCell<u64>,
    lease: Lease,
    presence: Presence,
}

#[test]
fn nobody_reads_what_was_taken_back() {
    explore(4, || {
        let lent = Arc::new(Lent {
            memory: UnsafeCell::new(7),
            lease: Lease::default(),
            presence: Presence::default(),
        });
        lent.lease.lend();
        let reader = {
            let lent = lent.clone();
            thread::spawn(move || {
                if lent.lease.open() {
                    // SAFETY: what loom checks.
                    assert_eq!(lent.memory.with(|place| unsafe { *place }), 7);
                    lent.lease.close();
                } else {
                    lent.presence.check().expect_err("only a rank that leaves takes back what it lent");
                }
            })
        };
        lent.presence.fail();
        lent.lease.revoke();
        while !lent.lease.is_free() {
            thread::yield_now();
        }
        // SAFETY: what loom checks.
        lent.memory.with_mut(|place| unsafe { *place = 8 });
        reader.join().unwrap();
    });
}

#[test]
fn a_record_is_read_whole_while_others_take_the_places_of_older_ones() {
    explore(3, || {
        let ring = Arc::new(ring::Ring::<2, 2>::new());
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || (0..4).for_each(|number| ring.push([number, 10 * number])))
        };
        let (first, records) = ring.read();
        for (number, record) in (first..).zip(records) {
            assert_eq!(record, [number, 10 * number]);
        }
        writer.join().unwrap();
        assert_eq!(ring.read(), (3, vec![[3, 30]]));
    });
}
