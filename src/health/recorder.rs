//! The flight recorder: what a communicator did last, always on.
//!
//! | recorded     | when                                                     | costs                            |
//! | ------------ | -------------------------------------------------------- | -------------------------------- |
//! | a call       | it begins; its end, where it had to wait or was long     | 48 bytes, and a look at a counter |
//! | what moved   | a step of at least [`WORTH_RECORDING`] bytes has ended   | 32 bytes, and a look at a counter |
//!
//! A call whose end was not looked at has ended before the next one began. It is written to a file when a call fails: see
//! [`Record`](super::Record).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::record::{Called, Moved};
use super::ring::Ring;
use crate::sys::ticks::ticks;

/// How many calls of a communicator are kept, and how many steps.
const CALLS: usize = 256;
const STEPS: usize = 512;

/// What a step that moves fewer bytes does takes no longer than to write it down.
pub const WORTH_RECORDING: usize = 4 << 10;

/// Stands for no rank.
const NOBODY: u32 = u32::MAX;
/// Which word of a call its end is.
const END: usize = 5;

/// What moved in one step of the call that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The lane, its round, and its step there.
    pub place: (u8, u32, u32),
    /// The first rank that it came from, and the first one that it went to.
    pub peers: Peers,
    /// How many bytes.
    pub bytes: usize,
}

/// Whom something comes from and goes to, as the communicator numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers(u64);

impl Peers {
    /// From that one to that one, where there are any.
    pub fn new(from: Option<u32>, to: Option<u32>) -> Self {
        Self(u64::from(from.unwrap_or(NOBODY)) << 32 | u64::from(to.unwrap_or(NOBODY)))
    }

    /// The same ranks, as the job numbers them.
    fn named(self, members: &[u32]) -> [Option<u32>; 2] {
        [(self.0 >> 32) as u32, self.0 as u32].map(|rank| members.get(rank as usize).copied())
    }
}

/// One communicator's.
pub(super) struct Recorder {
    /// Number, count and codes as they travel; peers; begin and end.
    calls: Ring<6, CALLS>,
    /// The time; call and round; peers; bytes, lane and step. There is none before there is a long call.
    steps: OnceLock<Ring<4, STEPS>>,
    /// How many of the calls have ended well.
    ended: AtomicU64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { calls: Ring::new(), steps: OnceLock::new(), ended: AtomicU64::new(0) }
    }

    #[inline(always)]
    pub(super) fn begin(&self, [_, number, count, codes]: &[u64; 4], peers: Peers) {
        self.calls.push([*number, *count, *codes, peers.0, ticks()]);
    }

    #[inline(always)]
    pub(super) fn end(&self) {
        self.ended.store(self.calls.written(), Ordering::Relaxed);
    }

    pub(super) fn stamp(&self) {
        self.calls.amend(END, ticks());
    }

    pub(super) fn moved(&self, Move { place: (lane, round, step), peers, bytes }: Move) {
        let call = self.calls.written().wrapping_sub(1) << 32;
        let bytes = u64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) << 32;
        let place = u64::from(lane) << 24 | u64::from(step & 0xff_ffff);
        let steps = self.steps.get_or_init(Ring::new);
        steps.push([ticks(), call | u64::from(round), peers.0, bytes | place]);
    }

    /// The last calls of a communicator with these members, the oldest first.
    pub(super) fn calls(&self, times: &Times, members: &[u32]) -> Vec<Called> {
        let ended = self.ended.load(Ordering::Relaxed);
        let (first, calls) = self.calls.read();
        let call = |(number, [sequence, count, codes, peers, begin, end]): (u64, [u64; 6])| {
            let [from, to] = Peers(peers).named(members);
            // It may be that of the call which was here before.
            let end = (end > begin).then(|| times.of(end));
            Called {
                number,
                sequence,
                count,
                codes,
                from,
                to,
                begin: times.of(begin),
                end,
                done: number < ended,
            }
        };
        (first..).zip(calls).map(call).collect()
    }

    /// Number, count and codes of the last calls that have a number, the oldest first.
    pub(super) fn called(&self) -> Vec<[u64; 3]> {
        let calls = self.calls.read().1.into_iter().map(|[number, count, codes, ..]| [number, count, codes]);
        calls.filter(|[number, ..]| *number != 0).collect()
    }

    /// What moved last, the oldest first.
    pub(super) fn steps(&self, times: &Times, members: &[u32]) -> Vec<Moved> {
        let newest = self.calls.written().wrapping_sub(1);
        let step = |[time, call, peers, what]: [u64; 4]| {
            let [from, to] = Peers(peers).named(members);
            // Of the call's number only the lower half was kept; it cannot lie far back.
            let back = (newest as u32).wrapping_sub((call >> 32) as u32);
            let (call, round) = (newest.wrapping_sub(back.into()), call as u32);
            let (lane, step) = ((what >> 24) as u8, what as u32 & 0xff_ffff);
            Moved { call, lane, round, step, from, to, bytes: what >> 32, time: times.of(time) }
        };
        let steps = self.steps.get().map_or_else(Vec::new, |steps| steps.read().1);
        steps.into_iter().map(step).collect()
    }
}

/// When the counter was first looked at: what its rate is found from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    ticks: u64,
    instant: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { ticks: ticks(), instant: Instant::now() }
    }

    /// What counts mean, as far as can be told by now.
    pub(super) fn times(&self) -> Times {
        let (now, elapsed) = (ticks(), self.instant.elapsed().as_nanos() as f64);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let counted = now.saturating_sub(self.ticks).max(1);
        Times { ticks: now, since, each: elapsed / counted as f64 }
    }
}

/// From counts to nanoseconds since 1970.
pub(super) struct Times {
    ticks: u64,
    since: u64,
    /// Nanoseconds of one count.
    each: f64,
}

impl Times {
    /// When the counter was looked at last.
    pub(super) fn now(&self) -> u64 {
        self.since
    }

    fn of(&self, ticks: u64) -> u64 {
        let ago = self.ticks.saturating_sub(ticks) as f64 * self.each;
        self.since.saturating_sub(ago as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_called_and_moved_is_told_with_its_times() {
        let (clock, recorder, members) = (Clock::start(), Recorder::new(), [4, 7]);
        let before = clock.times().now();
        recorder.begin(&[9, 1, 100, 5], Peers::new(None, None));
        std::thread::sleep(Duration::from_millis(20));
        recorder.moved(Move { place: (1, 2, 3), peers: Peers::new(Some(1), None), bytes: 5000 });
        recorder.stamp();
        recorder.end();
        recorder.begin(&[9, 0, 6, 8], Peers::new(None, Some(0)));
        let times = clock.times();
        let calls = recorder.calls(&times, &members);
        let [first, second] = &calls[..] else { panic!("{calls:?}") };
        assert_eq!((first.number, first.sequence, first.count, first.codes), (0, 1, 100, 5));
        assert_eq!((first.from, first.to, first.done), (None, None, true));
        assert_eq!((second.number, second.sequence, second.to), (1, 0, Some(4)));
        assert_eq!((second.end, second.done), (None, false), "it is on its way");
        let steps = recorder.steps(&times, &members);
        let [step] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!((step.call, step.lane, step.round, step.step), (0, 1, 2, 3));
        assert_eq!((step.from, step.to, step.bytes), (Some(7), None, 5000));
        let order =
            [before, first.begin, step.time, first.end.expect("it was stamped"), second.begin, times.now()];
        // Two clocks were read one after the other, and one may be set meanwhile: not to the microsecond.
        assert!(order.windows(2).all(|pair| pair[0] <= pair[1] + 1_000_000), "{order:?}");
        assert!(step.time - first.begin >= 15_000_000, "{order:?}");
    }
}
