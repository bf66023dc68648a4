//! Measures one case on all ranks at once.
//!
//! ```text
//!   prepare, call, compare | prepare, barrier, k timed calls | prepare, call, compare | prepare, ...
//!   └── with --check ────┘   └── a batch of about 1 ms ────┘
//! ```
//!
//! A batch takes as long as its slowest rank took; the median of the batches is reported. Preparing a
//! buffer leaves its lines in the caches of the core that wrote it, as a program that computes would.

use std::time::Instant;

use kolo::op::OpKind;
use kolo::plan::plan_id;
use kolo::{Communicator, ReduceOp};

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
const BATCHES: (u64, u64) = (5, 101);

/// What stays the same from case to case.
pub(crate) struct Bench<'a, T: Value> {
    communicator: &'a mut Communicator,
    settings: &'a Settings,
    patterns: Patterns<T>,
    op: ReduceOp<T>,
    /// Elements that this rank found wrong.
    pub(crate) wrong: u64,
}

impl<'a, T: Value> Bench<'a, T> {
    pub(crate) fn new(communicator: &'a mut Communicator, settings: &'a Settings) -> Self {
        let (rank, size) = (communicator.rank(), communicator.size());
        let patterns = Patterns::new(settings.op, size);
        let op = operator(settings.op.unwrap_or(OpKind::Sum), size, rank);
        Self { communicator, settings, patterns, op, wrong: 0 }
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
        Ok(Row {
            bytes,
            count,
            plan: self.plan(&case, bytes)?,
            out_of_place: self.form(case, Form::OutOfPlace, bytes)?,
            in_place: self.form(case, Form::InPlace, bytes)?,
        })
    }

    /// Whether all ranks go on to the next size.
    pub(crate) fn go_on(&mut self, mine: bool) -> kolo::Result<bool> {
        Ok(sum(self.communicator, u64::from(!mine))? == 0)
    }

    /// What the communicator walks for that many bytes.
    fn plan(&mut self, case: &Case, bytes: usize) -> kolo::Result<Option<Plan>> {
        let Some(kind) = case.operation.kind() else { return Ok(None) };
        let explanation = self.communicator.explain(kind, bytes)?;
        let mut fingerprints = vec![0; case.size];
        self.communicator.all_gather(&[explanation.fingerprint], &mut fingerprints)?;
        Ok(Some(Plan {
            algorithm: explanation.algorithm.to_owned(),
            id: format!("{:016x}", plan_id(fingerprints)),
            predicted_us: explanation.predicted_ns as f64 / 1e3,
        }))
    }

    fn form(&mut self, case: Case, form: Form, bytes: usize) -> kolo::Result<Option<Timing>> {
        if !case.does(form) {
            return Ok(None);
        }
        let mut stage = Stage::new(case, form, &self.patterns);
        stage.prepare();
        let mut wrong = 0_u64;
        let expected = warm_up(self.communicator, &mut stage, &self.op, self.settings.warmup)?;
        let (batches, calls) = schedule(expected, self.settings.iters);
        let mut times = Vec::new();
        for _ in 0..batches {
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
            times.push(start.elapsed().as_secs_f64() / calls as f64);
        }
        self.wrong += wrong;
        slowest(self.communicator, &mut times)?;
        let seconds = median(times).unwrap_or(0.0);
        let algbw = if seconds > 0.0 { bytes as f64 / seconds / 1e9 } else { 0.0 };
        Ok(Some(Timing {
            time_us: seconds * 1e6,
            algbw_gbps: algbw,
            busbw_gbps: algbw * bus_factor(case.operation.kind(), case.size),
            wrong: if self.settings.check { Some(sum(self.communicator, wrong)?) } else { None },
        }))
    }
}

/// Calls without timing them, and returns about how long one takes on the slowest rank, in seconds.
fn warm_up<T: Value>(
    communicator: &mut Communicator,
    stage: &mut Stage<'_, T>,
    op: &ReduceOp<T>,
    calls: u64,
) -> kolo::Result<f64> {
    let mut shortest = BATCH;
    for call in 0..calls {
        let start = Instant::now();
        stage.call(communicator, op)?;
        let took = start.elapsed().as_secs_f64();
        shortest = if call == 0 { took } else { shortest.min(took) };
    }
    let mut slowest_rank = [shortest];
    slowest(communicator, &mut slowest_rank)?;
    Ok(slowest_rank[0])
}

/// How many batches of how many calls each, where one call takes about so many seconds.
fn schedule(call: f64, iters: Option<u64>) -> (u64, u64) {
    let calls = ((BATCH / call.max(1e-9)) as u64).clamp(1, 10_000);
    match iters {
        Some(iters) => (iters.div_ceil(calls.min(iters)), calls.min(iters)),
        None => (((TIMED / (calls as f64 * call)) as u64).clamp(BATCHES.0, BATCHES.1), calls),
    }
}

/// Each time becomes that of the slowest rank.
fn slowest(communicator: &mut Communicator, times: &mut [f64]) -> kolo::Result<()> {
    communicator.all_reduce_in_place(times, ReduceOp::Max)
}

fn sum(communicator: &mut Communicator, mine: u64) -> kolo::Result<u64> {
    let mut sum = [mine];
    communicator.all_reduce_in_place(&mut sum, ReduceOp::Sum)?;
    Ok(sum[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_about_as_long_as_they_should_be() {
        assert_eq!(schedule(1e-6, None), (100, 1000));
        assert_eq!(schedule(0.5, None), (5, 1));
        assert_eq!(schedule(1e-6, Some(20)), (1, 20));
        assert_eq!(schedule(1e-4, Some(25)), (3, 10));
        assert_eq!(schedule(1.0, Some(1)), (1, 1));
    }
}
