//! What else shapes the numbers: how far two cores are apart, and who else used them meanwhile.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Nanoseconds for a cache line to go from one core to another and back: the least that any message
/// between two ranks in shared memory and its answer can take. `None` on one core.
pub(crate) fn line_round_trip() -> Option<f64> {
    const TURNS: u32 = 200;
    const TRIES: u32 = 20;
    let allowed = sched_getaffinity(None).ok()?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).take(2).collect();
    let &[one, other] = &cores[..] else { return None };
    let flag = Line(AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(other);
            (0..TURNS * TRIES).for_each(|turn| flag.pass(2 * turn + 1));
        });
        let measured = scope.spawn(|| {
            stay_on(one);
            let once = |attempt: u32| {
                let start = Instant::now();
                (attempt * TURNS..(attempt + 1) * TURNS).for_each(|turn| flag.pass(2 * turn));
                start.elapsed().as_nanos() as f64 / f64::from(TURNS)
            };
            (0..TRIES).map(once).min_by(f64::total_cmp)
        });
        measured.join().ok()?
    })
}

/// Keeps the calling thread on one core, if it may be kept.
fn stay_on(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    let _ = sched_setaffinity(None, &set);
}

/// A counter on a line of its own.
#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    /// Waits until it is `turn`, makes it the next.
    fn pass(&self, turn: u32) {
        let mut spins = 0_u32;
        while self.0.load(Ordering::Acquire) != turn {
            spins += 1;
            // The partner may not even run.
            if spins.is_multiple_of(4096) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.0.store(turn + 1, Ordering::Release);
    }
}

/// Processor time used on this machine since it was made.
pub(crate) struct Load {
    start: Instant,
    busy: Duration,
    own: Duration,
}

impl Load {
    /// From now on. `None` where /proc does not tell.
    pub(crate) fn begin() -> Option<Self> {
        Some(Self { start: Instant::now(), busy: busy_time()?, own: own_time()? })
    }

    /// Processor time that this process used.
    pub(crate) fn own(&self) -> Duration {
        own_time().map_or(Duration::ZERO, |own| own.saturating_sub(self.own))
    }

    /// How many cores others kept busy, where all ranks together used `ranks` of processor time.
    pub(crate) fn foreign(&self, ranks: Duration) -> Option<f64> {
        let busy = busy_time()?.saturating_sub(self.busy).saturating_sub(ranks);
        Some(busy.as_secs_f64() / self.start.elapsed().as_secs_f64().max(1e-3))
    }
}

/// Time that all cores together were not idle.
fn busy_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    // cpu user nice system idle iowait irq softirq steal (guest, which user contains)
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(ticks(fields.iter().take(8).sum::<u64>() - idle))
}

fn own_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold anything: state and ten more fields, then user and system time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(ticks(next()? + next()?))
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_and_comes_back() {
        assert!(line_round_trip().is_none_or(|ns| ns > 0.0));
    }

    #[test]
    fn time_passes() {
        let load = Load::begin().unwrap();
        assert!(load.foreign(Duration::ZERO).unwrap() >= 0.0);
        assert!(load.foreign(Duration::from_secs(1 << 30)) == Some(0.0));
    }
}
