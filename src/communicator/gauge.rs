//! What the network between hosts can do, measured when a job starts.
//!
//! The hosts stand in a ring; the first rank of each is timed with those of the next host and of the one before, one
//! pair after the other, all pairs that are apart at once:
//!
//! ```text
//!   first    0 ── 1    2 ── 3    4        a few empty messages to and fro, then large ones, some 20 ms long
//!   then          1 ── 2    3 ── 4
//!   last     0 ────────────────── 4       where the hosts are an odd number
//! ```
//!
//! A host's rate is the better one of its two pairs', since either pair is as slow as its slower end: so one slow host
//! does not make its neighbours look slow. All ranks are told all figures, rounded, so that they choose alike, and so
//! that a little noise changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bootstrap::Bootstrap;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::kernel;
use crate::memory::{Bell, View};
use crate::topology::{Channel, Cost, RAIL};
use crate::transport::{Link, Tag};

/// The channel of these messages, which no plan uses.
pub(super) const GAUGE: Channel = RAIL - 1;

/// How often an empty message goes to and fro; the first time does not count.
const ROUND_TRIPS: u32 = 9;
/// How long the large messages are to take together, and how many there are at most.
const LONG: Duration = Duration::from_millis(20);
const MOST: u32 = 32;
/// Looks before a rank sleeps.
const LOOKS: u32 = 2000;
const NAP: Duration = Duration::from_millis(50);

/// What a host's network can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    latency_ns: u32,
    bytes_per_us: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// By host.
    hosts: BTreeMap<u32, Figures>,
}

impl Gauge {
    /// What a message between two hosts costs, where that was measured.
    pub(super) fn cost(&self, nominal: Cost, a: u32, b: u32) -> Cost {
        let (Some(a), Some(b)) = (self.hosts.get(&a), self.hosts.get(&b)) else { return nominal };
        // What the cores do meanwhile is counted elsewhere.
        let both = 2 * nominal.handling.ns;
        Cost {
            latency_ns: a.latency_ns.midpoint(b.latency_ns).saturating_sub(both),
            bytes_per_us: a.bytes_per_us.min(b.bytes_per_us),
            ..nominal
        }
    }

    /// The rate of the fastest host's network, where it was measured.
    pub(super) fn fastest(&self) -> Option<u32> {
        self.hosts.values().map(|figures| figures.bytes_per_us).max()
    }

    /// Measures, over links that `open` opens to the first ranks of other hosts. All ranks call it.
    pub(super) fn measure(
        bootstrap: &mut dyn Bootstrap,
        hosts: &[u32],
        deadline: Deadline,
        open: impl Fn(usize, &Arc<Bell>) -> Result<Box<dyn Link>>,
    ) -> Result<Self> {
        let me = bootstrap.rank();
        let leaders: Vec<usize> = (0..hosts.len()).filter(|&rank| hosts[rank] as usize == rank).collect();
        let mut mine: Option<Figures> = None;
        if let Some(place) = leaders.iter().position(|&leader| leader == me) {
            for peer in partners(place, leaders.len()) {
                let bell = Bell::new()?;
                let pair = Pair { link: open(leaders[peer], &bell)?, bell, deadline };
                let found = pair.measure(place < peer).map_err(|error| error.with(leaders[peer]))?;
                let best = mine.get_or_insert(found);
                best.latency_ns = best.latency_ns.min(found.latency_ns);
                best.bytes_per_us = best.bytes_per_us.max(found.bytes_per_us);
            }
        }
        let said = mine.map_or([0; 8], Figures::encode);
        let all = bootstrap.all_gather(&said)?;
        let figures = leaders.into_iter().filter_map(|leader| {
            Some((leader as u32, Figures::decode(all[leader].as_slice().try_into().ok()?)))
        });
        Ok(Self { hosts: figures.collect() })
    }
}

impl Figures {
    fn encode(self) -> [u8; 8] {
        (u64::from(rounded(self.latency_ns)) << 32 | u64::from(rounded(self.bytes_per_us))).to_le_bytes()
    }

    fn decode(bytes: [u8; 8]) -> Self {
        let word = u64::from_le_bytes(bytes);
        // A peer's figures are not trusted to be possible.
        Self { latency_ns: (word >> 32) as u32, bytes_per_us: (word as u32).max(1) }
    }
}

/// The number with five significant bits.
fn rounded(number: u32) -> u32 {
    let shift = number.checked_ilog2().unwrap_or(0).saturating_sub(4);
    number >> shift << shift
}

/// Whom the host at `place` is measured with, in this order: first the pairs that begin at even places, then those at
/// odd ones, then the one that closes a ring of an odd number.
fn partners(place: usize, hosts: usize) -> Vec<usize> {
    let (next, before) = ((place + 1) % hosts, (place + hosts - 1) % hosts);
    let turn = |first: usize| if first + 1 == hosts && hosts % 2 == 1 { 2 } else { first % 2 };
    let mut pairs = vec![(turn(place), next), (turn(before), before)];
    pairs.sort_unstable();
    pairs.dedup_by_key(|(_, peer)| *peer);
    pairs.into_iter().map(|(_, peer)| peer).collect()
}

/// Two hosts' first ranks.
struct Pair {
    link: Box<dyn Link>,
    bell: Arc<Bell>,
    deadline: Deadline,
}

impl Pair {
    /// The lower rank leads; it tells the other one what came out.
    fn measure(&self, leads: bool) -> Result<Figures> {
        let slot = vec![0; self.link.limits().slot];
        if !leads {
            for _ in 0..ROUND_TRIPS {
                self.echo()?;
            }
            self.echo()?;
            let more = self.receive()?.first().copied().unwrap_or(0);
            (1..more).try_for_each(|_| self.receive().map(drop))?;
            self.echo()?;
            let said = self.receive()?;
            let figures = said.try_into().map_err(|_| Error::new(Kind::Refused, "it sent no figures"));
            return figures.map(Figures::decode);
        }
        let trip = |bytes: &[u8]| -> Result<Duration> {
            let begun = Instant::now();
            self.send(bytes)?;
            self.receive()?;
            Ok(begun.elapsed())
        };
        let warm = trip(&[])?;
        let trips = (1..ROUND_TRIPS).map(|_| trip(&[])).collect::<Result<Vec<_>>>()?;
        let round_trip = trips.into_iter().min().unwrap_or(warm);
        let one = trip(&slot)?;
        let many = (LONG.as_nanos() / one.as_nanos().max(1)).clamp(1, MOST.into()) as u32;
        self.send(&[many as u8])?;
        let begun = Instant::now();
        (1..many).try_for_each(|_| self.send(&slot))?;
        trip(&slot)?;
        let all = begun.elapsed();
        let carried = all.saturating_sub(round_trip).as_nanos().max(1);
        let figures = Figures {
            latency_ns: (round_trip.as_nanos() / 2).try_into().unwrap_or(u32::MAX),
            bytes_per_us: (u128::from(many) * slot.len() as u128 * 1000 / carried).clamp(1, u32::MAX.into())
                as u32,
        };
        self.send(&figures.encode())?;
        self.wait(|| Ok(self.link.settled()?.then_some(())))?;
        Ok(figures)
    }

    /// Answers a message by an empty one.
    fn echo(&self) -> Result<()> {
        self.receive()?;
        self.send(&[])
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let tag = Tag { digest: 0, body: [0; 4] };
        self.wait(|| Ok(self.link.send(View::read(bytes), &tag)?.then_some(())))
    }

    /// The next message, or as much of it as tells something.
    fn receive(&self) -> Result<Vec<u8>> {
        self.wait(|| {
            let Some(message) = self.link.peek()? else { return Ok(None) };
            let told = message.payload.part(0..message.payload.len().min(8));
            let mut start = vec![0; told.len()];
            kernel::copy(&[View::write(&mut start)], told);
            self.link.release()?;
            Ok(Some(start))
        })
    }

    fn wait<R>(&self, mut look: impl FnMut() -> Result<Option<R>>) -> Result<R> {
        for looked in 0.. {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if looked < LOOKS {
                std::thread::yield_now();
                continue;
            }
            if self.deadline.passed() {
                break;
            }
            let alive = self.link.alive();
            // The last message of one that is done may have come meanwhile.
            if let Some(found) = look()? {
                return Ok(found);
            }
            alive?;
            let watches: Vec<_> = self.link.watch().into_iter().collect();
            self.bell.announce(!watches.is_empty());
            self.bell.sleep(&watches, Some(NAP))?;
        }
        Err(Error::new(Kind::Deadline, "it did not take part in measuring the network in time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Handling;

    #[test]
    fn all_pairs_of_a_ring_meet_in_an_order_that_ends() {
        for hosts in 2..=9 {
            let mut left: Vec<_> = (0..hosts).map(|place| partners(place, hosts)).collect();
            while left.iter().any(|partners| !partners.is_empty()) {
                let ready = |place: usize| {
                    let peer = *left[place].first()?;
                    (left[peer].first() == Some(&place)).then_some((place, peer))
                };
                let (a, b) = (0..hosts).find_map(ready).expect("two that are each other's next");
                left[a].remove(0);
                left[b].remove(0);
            }
            assert!((0..hosts).all(|place| partners(place, hosts).contains(&((place + 1) % hosts))));
        }
    }

    #[test]
    fn figures_are_rounded_to_three_hundredths() {
        for (number, expected) in
            [(0, 0), (1, 1), (31, 31), (119, 116), (1187, 1152), (u32::MAX, 0xf800_0000)]
        {
            assert_eq!(rounded(number), expected);
            assert_eq!(rounded(expected), expected);
        }
    }

    #[test]
    fn a_pair_is_as_slow_as_its_slower_host() {
        let figures = |latency_ns, bytes_per_us| Figures { latency_ns, bytes_per_us };
        let hosts = [(0, figures(20_000, 120)), (2, figures(40_000, 12))].into();
        let gauge = Gauge { hosts };
        let handling = Handling { ns: 1_000, bytes_per_us: 5 };
        let nominal = Cost { latency_ns: 1, bytes_per_us: 9999, handling };
        let cost = gauge.cost(nominal, 0, 2);
        assert_eq!((cost.latency_ns, cost.bytes_per_us, cost.handling), (28_000, 12, handling));
        assert_eq!(gauge.cost(nominal, 0, 1), nominal);
        assert_eq!((gauge.fastest(), Gauge::default().fastest()), (Some(120), None));
    }
}
