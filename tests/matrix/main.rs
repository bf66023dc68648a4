//! The matrix: every call with every algorithm, over every transport, for every type and operator.
//!
//! | family  | in full                                                   | in turn                            |
//! | ------- | --------------------------------------------------------- | ---------------------------------- |
//! | shapes  | transport x ranks x call x algorithm x count              | type, operator, root, skew, work   |
//! | types   | transport x call x algorithm x type x operator            | ranks, count, root, skew           |
//! | works   | transport x ranks x call that can be started x count      | algorithm, type, operator, root    |
//!
//! - ranks 1 2 3 4 5 7 8, as threads; the chooser counts as an algorithm; a call in place, apart, and with
//!   counts that differ (some zero, all zero) counts as three.
//! - counts 0, 1, n-1, n, n+1, a line of 64 bytes and a chunk, each -1, +0, +1, some rounds, large and odd.
//! - roots first, middle, last; input and output each off alignment by some elements.
//! - Inputs have exact results ([`patterns`]). Every element of every rank is compared, bit by bit, those
//!   of the input and around both sides too ([`memory`]).
//!
//! What is taken in turn is drawn from a fixed seed. A failing case prints as the literal that
//! [`run::run`] takes to repeat it.

mod calls;
mod case;
mod memory;
mod patterns;
mod run;
#[path = "../support/mod.rs"]
mod support;

use case::{Call, Case};
use kolo::Dtype;
use patterns::Op;
use run::run;
use support::plain::Random;

const SIZES: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
const TRANSPORTS: [&str; 3] = ["local", "shm", "tcp"];

/// Draws what is taken in turn.
struct Turn(Random);

impl Turn {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.below(of.len())]
    }

    /// A case with a type, an operator that fits, a root and skews; its count is still 0.
    fn case(
        &mut self,
        transport: &'static str,
        size: usize,
        call: Call,
        algorithm: Option<&'static str>,
    ) -> Case {
        loop {
            let dtype = self.one(&Dtype::ALL);
            let op = call.reduces().then(|| self.one(&Op::all(dtype).collect::<Vec<_>>()));
            let case = self.typed(transport, size, call, algorithm, dtype, op);
            if case.fits() {
                return case;
            }
        }
    }

    fn typed(
        &mut self,
        transport: &'static str,
        size: usize,
        call: Call,
        algorithm: Option<&'static str>,
        dtype: Dtype,
        op: Option<Op>,
    ) -> Case {
        let root = self.one(&[0, size / 2, size - 1]);
        let skew = [self.0.below(5), self.0.below(5)];
        let salt = self.0.below(5);
        Case { transport, size, call, algorithm, dtype, op, count: 0, root, skew, salt, work: false }
    }
}

/// About the number of ranks and a line; about a chunk; some rounds.
fn counts(case: &Case) -> [usize; 14] {
    let (n, line, unit) = (case.size, 64 / case.dtype.size(), case.unit());
    let small = [0, 1, n - 1, n, n + 1, line - 1, line, line + 1, 997];
    let large = [unit - 1, unit, unit + 1, 2 * unit + line + 1, 70_001];
    std::array::from_fn(|at| *small.iter().chain(&large).nth(at).expect("as many as there are"))
}

fn calls(transport: &str) -> impl Iterator<Item = (Call, Option<&'static str>)> {
    let named = |call: Call| call.algorithms(transport).into_iter().map(move |name| (call, name));
    Call::ALL.into_iter().flat_map(named)
}

fn shapes(transport: &'static str) {
    let mut turn = Turn(Random(transport.len() as u64));
    let mut cases = Vec::new();
    for (size, (call, algorithm)) in
        SIZES.into_iter().flat_map(|size| calls(transport).map(move |of| (size, of)))
    {
        for at in 0..14 {
            let case = turn.case(transport, size, call, algorithm);
            let work = call.starts() && turn.0.below(4) == 0;
            cases.push(Case { count: counts(&case)[at], work, ..case });
        }
    }
    run(&format!("shapes over {transport}"), &cases);
}

#[test]
fn shapes_over_local() {
    shapes("local");
}

#[test]
fn shapes_over_shm() {
    shapes("shm");
}

#[test]
fn shapes_over_tcp() {
    shapes("tcp");
}

#[test]
fn types() {
    let mut turn = Turn(Random(7));
    let mut cases = Vec::new();
    for (transport, (call, algorithm)) in TRANSPORTS.into_iter().flat_map(|t| calls(t).map(move |of| (t, of)))
    {
        for dtype in Dtype::ALL {
            let ops = match call.reduces() {
                true => Op::all(dtype).map(Some).collect(),
                false => vec![None],
            };
            for op in ops {
                let size = turn.one(&SIZES[1..]);
                let count = turn.one(&[63, 255, 1000, 1021]);
                let case = turn.typed(transport, size, call, algorithm, dtype, op);
                cases.push(Case { count, ..case });
            }
        }
    }
    cases.retain(Case::fits);
    run("types", &cases);
}

#[test]
fn works() {
    let mut turn = Turn(Random(8));
    let mut cases = Vec::new();
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|t| [1, 2, 3, 8].map(|size| (t, size))) {
        for call in Call::ALL.into_iter().filter(|call| call.starts()) {
            for count in [0, 1, 1000, 40_001] {
                let algorithm = turn.one(&call.algorithms(transport));
                let case = turn.case(transport, size, call, algorithm);
                cases.push(Case { count, work: true, ..case });
            }
        }
    }
    run("works", &cases);
}
