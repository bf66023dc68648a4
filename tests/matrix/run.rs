//! Runs cases: the ranks of a job are threads, and make all calls of its size and transport in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kolo::{Communicator, Result};

use crate::calls;
use crate::case::{Call, Case, config};
use crate::memory::{Memory, Sides};
use crate::patterns::Patterns;
use crate::support::plain::{Plain, with_dtype};

/// Works that are outstanding at once, at most.
const OUTSTANDING: usize = 5;

/// What is wrong with cases whose works were started: known by waiting for them.
type Pending = Box<dyn FnOnce() -> Result<Option<String>>>;

/// Runs all cases; panics with the list of those that fail.
pub(crate) fn run(name: &str, cases: &[Case]) {
    let mut jobs: Vec<(&str, usize)> = cases.iter().map(|case| (case.transport, case.size)).collect();
    jobs.sort_unstable();
    jobs.dedup();
    let mut failures = Vec::new();
    for (transport, size) in jobs {
        let of_job = |case: &&Case| (case.transport, case.size) == (transport, size);
        failures.extend(job(transport, size, &cases.iter().filter(of_job).collect::<Vec<_>>()));
    }
    println!("{name}: {} cases", cases.len());
    let shown = failures.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures in {} cases:\n{shown}", failures.len(), cases.len());
}

fn job(transport: &str, size: usize, cases: &[&Case]) -> Vec<String> {
    let communicators =
        Communicator::threads(size, &config(transport)).expect("threads can always be linked");
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let start = |communicator| {
            let mut rank = Rank { communicator, cases, arrived: &arrived, barriers: 0, failures: Vec::new() };
            scope.spawn(move || {
                rank.all();
                rank.failures
            })
        };
        let ranks: Vec<_> = communicators.into_iter().map(start).collect();
        ranks.into_iter().flat_map(|rank| rank.join().expect("a rank says what is wrong")).collect()
    })
}

struct Rank<'a> {
    communicator: Communicator,
    cases: &'a [&'a Case],
    /// How often ranks came to a barrier.
    arrived: &'a AtomicUsize,
    /// How often this rank did.
    barriers: usize,
    failures: Vec<String>,
}

impl Rank<'_> {
    fn all(&mut self) {
        self.communicator.set_deadline(Some(Duration::from_secs(60)));
        let mut pending: Vec<(&Case, Pending)> = Vec::new();
        for &case in self.cases {
            let outcome = with_dtype!(case.dtype, T => self.one::<T>(case));
            // Until here, so that a blocking call meets works that are under way.
            if !case.work || pending.len() == OUTSTANDING {
                let outcomes: Vec<_> = pending.drain(..).map(|(case, finish)| (case, finish())).collect();
                if !outcomes.into_iter().all(|(case, outcome)| self.goes_on(case, outcome)) {
                    return;
                }
            }
            let outcome = outcome.map(|outcome| match outcome {
                Outcome::Known(wrong) => wrong,
                Outcome::Later(finish) => {
                    pending.push((case, finish));
                    None
                }
            });
            if !self.goes_on(case, outcome) {
                return;
            }
        }
        let outcomes: Vec<_> = pending.drain(..).map(|(case, finish)| (case, finish())).collect();
        let _ = outcomes.into_iter().all(|(case, outcome)| self.goes_on(case, outcome));
    }

    /// Notes what is wrong; says whether the communicator can still be used.
    fn goes_on(&mut self, case: &Case, outcome: Result<Option<String>>) -> bool {
        let usable = outcome.is_ok();
        let wrong = outcome.unwrap_or_else(|error| Some(error.to_string()));
        let rank = self.communicator.rank();
        self.failures.extend(wrong.map(|what| format!("{case:?}: rank {rank}: {what}")));
        usable
    }

    fn one<T: Plain>(&mut self, case: &Case) -> Result<Outcome> {
        let rank = self.communicator.rank();
        if let Some(kind) = case.call.kind() {
            self.communicator.set_algorithm(kind, case.algorithm)?;
        }
        let came = case.call == Call::Barrier;
        if came {
            self.barriers += 1;
            self.arrived.fetch_add(1, Ordering::SeqCst);
        }
        let sides = Sides::new(case, rank);
        let patterns = Patterns::<T>::new(case.op, case.size);
        let [mut input, mut output] = sides.memory(&patterns, case.skew);
        if case.work {
            let (input, join_input) = input.split();
            let (output, join_output) = output.split();
            let work = calls::start(&mut self.communicator, case, input, output)?;
            return Ok(Outcome::Later(Box::new(move || {
                let [input, output] = work()?;
                let memory: [Memory<T>; 2] = [join_input(input), join_output(output)];
                Ok(sides.wrong(&patterns, &memory))
            })));
        }
        calls::block(&mut self.communicator, case, input.slice(), output.slice())?;
        let arrived = self.arrived.load(Ordering::SeqCst);
        if came && arrived < self.barriers * case.size {
            let what = format!("left barrier {} after {arrived} arrivals", self.barriers);
            return Ok(Outcome::Known(Some(what)));
        }
        Ok(Outcome::Known(sides.wrong(&patterns, &[input, output])))
    }
}

enum Outcome {
    Known(Option<String>),
    Later(Pending),
}
