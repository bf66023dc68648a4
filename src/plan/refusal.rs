//! Why a plan was refused.

use std::fmt;

use super::step::Plan;

/// Why a plan was refused: who, where, what. Displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rank whose plan it is.
    pub rank: usize,
    /// The lane and the step in it, where a step is to blame.
    pub step: Option<(usize, usize)>,
    /// The step, printed.
    pub printed: String,
    /// What is wrong.
    pub problem: String,
    /// Under which circumstances, if only under some.
    pub mode: String,
    /// Whether the ranks wait for each other or for what never comes.
    pub stuck: bool,
}

impl Refusal {
    /// The plan of `rank` as a whole is wrong.
    pub(super) fn plan(rank: usize, problem: impl Into<String>) -> Box<Self> {
        let (printed, mode) = (String::new(), String::new());
        Box::new(Self { rank, step: None, printed, problem: problem.into(), mode, stuck: false })
    }

    /// A step of `rank` is wrong.
    pub(super) fn step(
        plans: &[Plan],
        rank: usize,
        lane: usize,
        step: usize,
        problem: impl Into<String>,
    ) -> Box<Self> {
        let printed = plans[rank].lanes[lane].steps[step].to_string();
        Box::new(Self { step: Some((lane, step)), printed, ..*Self::plan(rank, problem) })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if let Some((lane, step)) = self.step {
            write!(f, ", lane {lane}, step {step} ({})", self.printed)?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.mode.is_empty() {
            write!(f, " ({})", self.mode)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
