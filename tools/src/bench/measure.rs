//! Measures one case on all ranks at once.
//!
//! ```text
//!   prepare, call, compare | prepare, barrier, k timed calls | prepare, call, compare | prepare, ...
//!   └── with --check ────┘   └── a batch of about 1 ms ────┘
//! ```
//!
//! A batch takes as long as its slowest rank took; the median of the batches is reported. Preparing a
//! buffer leaves its lines in the caches of the core that wrote it, as a program that computes would.

use std::time::{Duration, Instant};

use kolo::op::OpKind;
use kolo::plan::plan_id;
use kolo::{Buffer, Communicator, ReduceOp};

use super::case::{Case, Form, Stage};
use super::options::Settings;
use super::pattern::{Patterns, operator};
use super::report::{Plan, Row, Timing};
use super::statistics::{bus_factor, median};
use super::value::Value;

/// A batch's length in seconds: many calls of a short collective, so that reading the clock counts nothing.
const BATCH: f64 = 1e-3;

/// The timed part of one form of a case, in seconds, where `--iters` does not say how many calls.
const TIMED: f64 = 0.1;

/// Batches of one form of a case, likewise.
const LEAST_BATCHES: usize = 5;
const MOST_BATCHES: usize = 101;

/// Calls in one batch, however short.
const MOST_CALLS: u64 = 10_000;

/// What stays the same from case to case.
pub(crate) struct Bench<'a, T: Value> {
    communicator: &'a mut Communicator,
    settings: &'a Settings,
    op: ReduceOp<T>,
    /// Elements that this rank found wrong.
    pub(crate) wrong: u64,
}

impl<'a, T: Value> Bench<'a, T> {
    pub(crate) fn new(communicator: &'a mut Communicator, settings: &'a Settings) -> Self {
        let (rank, size) = (communicator.rank(), communicator.size());
        let op = operator(settings.op.unwrap_or(OpKind::Sum), size, rank);
        Self { communicator, settings, op, wrong: 0 }
    }

    /// The case of one size, as this rank sees it.
    fn case(&self, count: usize) -> Case {
        let Settings { operation, root, uneven, .. } = *self.settings;
        let (rank, size) = (self.communicator.rank(), self.communicator.size());
        Case { operation, count, uneven, root, rank, size }
    }

    /// Measures one size; all ranks get the same row.
    pub(crate) fn row(&mut self, count: usize) -> kolo::Result<Row> {
        let case = self.case(count);
        let bytes = case.elements() * T::DTYPE.size();
        let patterns = Patterns::new(self.settings.op, case.size, case.longest());
        Ok(Row {
            bytes,
            count,
            plan: self.plan(&case, bytes)?,
            out_of_place: self.form(case, Form::OutOfPlace, bytes, &patterns)?,
            in_place: self.form(case, Form::InPlace, bytes, &patterns)?,
        })
    }

    /// Whether all ranks go on to the next size.
    pub(crate) fn go_on(&mut self, mine: bool) -> kolo::Result<bool> {
        Ok(sum(self.communicator, u64::from(!mine))? == 0)
    }

    /// What the communicator walks for that many bytes.
    fn plan(&mut self, case: &Case, bytes: usize) -> kolo::Result<Option<Plan>> {
        let Some(kind) = case.operation.kind() else { return Ok(None) };
        let explanation = self.communicator.explain(kind.at(case.root), bytes)?;
        let mut fingerprints = vec![0; case.size];
        self.communicator.all_gather(&[explanation.fingerprint], &mut fingerprints)?;
        Ok(Some(Plan {
            algorithm: explanation.algorithm.to_owned(),
            id: format!("{:016x}", plan_id(fingerprints)),
            predicted_us: explanation.predicted_ns as f64 / 1e3,
        }))
    }

    fn form(
        &mut self,
        case: Case,
        form: Form,
        bytes: usize,
        patterns: &Patterns<T>,
    ) -> kolo::Result<Option<Timing>> {
        if !case.does(form) {
            return Ok(None);
        }
        let Self { communicator, settings, .. } = self;
        let mut stage = Stage::new(case, form, patterns, |len| memory(communicator, settings.alloc, len))?;
        stage.prepare();
        let mut wrong = 0_u64;
        let mut per_call = warm_up(self.communicator, &mut stage, &self.op, self.settings.warmup)?;
        let mut series = Series::default();
        while let Some(calls) = series.next_batch(per_call, self.settings.iters) {
            if self.settings.check {
                stage.prepare();
                stage.call(self.communicator, &self.op)?;
                wrong += stage.wrong() as u64;
            }
            stage.prepare();
            self.communicator.barrier()?;
            let start = Instant::now();
            for _ in 0..calls {
                stage.call(self.communicator, &self.op)?;
            }
            per_call = slowest(self.communicator, start.elapsed())? / calls as f64;
            series.add(per_call, calls);
        }
        self.wrong += wrong;
        let seconds = median(series.times).unwrap_or(0.0);
        let algbw = if seconds > 0.0 { bytes as f64 / seconds / 1e9 } else { 0.0 };
        Ok(Some(Timing {
            time_us: seconds * 1e6,
            algbw_gbps: algbw,
            busbw_gbps: algbw * bus_factor(case.operation.kind(), case.size),
            wrong: if self.settings.check { Some(sum(self.communicator, wrong)?) } else { None },
        }))
    }
}

/// Batches so far; the same on all ranks.
#[derive(Default)]
struct Series {
    /// Seconds per call in each batch.
    times: Vec<f64>,
    calls: u64,
    seconds: f64,
}

impl Series {
    /// How many calls the next batch has, if there is one, where a call takes about so many seconds.
    fn next_batch(&self, per_call: f64, iters: Option<u64>) -> Option<u64> {
        let enough =
            self.times.len() >= MOST_BATCHES || self.seconds >= TIMED && self.times.len() >= LEAST_BATCHES;
        let left = match iters {
            Some(iters) => iters - self.calls,
            None => {
                if enough {
                    0
                } else {
                    u64::MAX
                }
            }
        };
        let calls = ((BATCH / per_call.max(1e-9)) as u64).clamp(1, MOST_CALLS);
        (left > 0).then_some(calls.min(left))
    }

    fn add(&mut self, per_call: f64, calls: u64) {
        self.times.push(per_call);
        self.calls += calls;
        self.seconds += per_call * calls as f64;
    }
}

/// Memory for `len` elements, allocated together or by each rank for itself.
fn memory<T: Value>(communicator: &mut Communicator, together: bool, len: usize) -> kolo::Result<Buffer<T>> {
    if !together {
        return Ok(vec![T::of(0.0); len].into());
    }
    // All ask for as many as the one that needs most.
    let mut most = [len as u64];
    communicator.all_reduce_in_place(&mut most, ReduceOp::Max)?;
    Ok(communicator.alloc::<T>(most[0] as usize)?.split_at(len).0)
}

/// Calls without timing them, and returns about how long one takes on the slowest rank, in seconds.
fn warm_up<T: Value>(
    communicator: &mut Communicator,
    stage: &mut Stage<'_, T>,
    op: &ReduceOp<T>,
    calls: u64,
) -> kolo::Result<f64> {
    let mut shortest = None;
    for _ in 0..calls {
        let start = Instant::now();
        stage.call(communicator, op)?;
        let took = start.elapsed();
        shortest = shortest.map_or(Some(took), |shortest: Duration| Some(shortest.min(took)));
    }
    slowest(communicator, shortest.unwrap_or(Duration::from_secs_f64(BATCH)))
}

/// The longest of all ranks' times, in seconds.
fn slowest(communicator: &mut Communicator, mine: Duration) -> kolo::Result<f64> {
    let mut seconds = [mine.as_secs_f64()];
    communicator.all_reduce_in_place(&mut seconds, ReduceOp::Max)?;
    Ok(seconds[0])
}

fn sum(communicator: &mut Communicator, mine: u64) -> kolo::Result<u64> {
    let mut sum = [mine];
    communicator.all_reduce_in_place(&mut sum, ReduceOp::Sum)?;
    Ok(sum[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the batches where every call takes so long.
    fn batches(per_call: f64, iters: Option<u64>) -> Vec<u64> {
        let mut series = Series::default();
        let mut batches = Vec::new();
        while let Some(calls) = series.next_batch(per_call, iters) {
            series.add(per_call, calls);
            batches.push(calls);
        }
        batches
    }

    #[test]
    fn batches_are_as_long_and_as_many_as_they_should_be() {
        let many = batches(1e-6, None);
        assert!(
            (99..=MOST_BATCHES).contains(&many.len()) && many.iter().all(|&calls| calls.abs_diff(1000) <= 1)
        );
        assert_eq!(batches(0.5, None), [1; LEAST_BATCHES]);
        assert_eq!(batches(0.0, None), [MOST_CALLS; MOST_BATCHES]);
        assert_eq!(batches(1e-6, Some(20)), [20]);
        assert_eq!(batches(1e-4, Some(25)), [10, 10, 5]);
        assert_eq!(batches(1.0, Some(1)), [1]);
    }
}
