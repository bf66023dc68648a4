//! Proves that a schedule is one: nothing runs before what it needs, nothing is left out or done twice,
//! nobody waits for ever, and no more microbatches are in flight than said.

use std::collections::HashSet;

use super::simulate::{Costs, halves, simulate};
use super::{Action, Message};

/// What a verified schedule promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Per stage, the most microbatches between their entry (receipt, or forward pass on the first stage)
    /// and the end of their weight half: how many tapes the stage needs.
    pub in_flight: Vec<usize>,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// An action that needs another one before it.
    #[error("stage {stage}, action {index}: {action:?} comes before {needs}")]
    Order {
        /// Whose list.
        stage: usize,
        /// Where in it.
        index: usize,
        /// The action.
        action: Action,
        /// What is missing before it.
        needs: &'static str,
    },
    /// An action that occurs a second time.
    #[error("stage {stage}, action {index}: {action:?} occurs twice")]
    Twice {
        /// Whose list.
        stage: usize,
        /// Where in it.
        index: usize,
        /// The action.
        action: Action,
    },
    /// A microbatch that does not pass through all of its parts.
    #[error("stage {stage}: microbatch {microbatch} lacks its {part}")]
    Missing {
        /// Whose list.
        stage: usize,
        /// Which microbatch.
        microbatch: usize,
        /// What it lacks.
        part: &'static str,
    },
    /// A transfer to or from a stage that does not exist, or with two different neighbours at once.
    #[error("stage {stage}: {message:?} has no neighbour to pass to or from")]
    NoNeighbour {
        /// Whose list.
        stage: usize,
        /// The message.
        message: Message,
    },
    /// Stages that wait for each other.
    #[error("deadlock: {}", show(waits))]
    Deadlock {
        /// Who waits at which action.
        waits: Vec<(usize, Action)>,
    },
    /// More microbatches in flight than allowed.
    #[error("stage {stage}: {found} microbatches in flight, allowed are {allowed}")]
    InFlight {
        /// Whose list.
        stage: usize,
        /// How many.
        found: usize,
        /// The bound.
        allowed: usize,
    },
}

fn show(waits: &[(usize, Action)]) -> String {
    let each: Vec<_> = waits.iter().map(|(stage, action)| format!("stage {stage} at {action:?}")).collect();
    each.join(", ")
}

/// Proves `schedules`, one list for each stage, for `microbatches`, with at most `allowed(stage)` of them
/// in flight.
///
/// # Errors
///
/// The first fault found.
pub fn verify(
    schedules: &[Vec<Action>],
    microbatches: usize,
    allowed: impl Fn(usize) -> usize,
) -> Result<Proof, Fault> {
    let mut in_flight = Vec::with_capacity(schedules.len());
    for (stage, actions) in schedules.iter().enumerate() {
        let found = Ledger::new(stage, schedules.len()).walk(actions, microbatches)?;
        if found > allowed(stage) {
            return Err(Fault::InFlight { stage, found, allowed: allowed(stage) });
        }
        in_flight.push(found);
    }
    let free = Costs { forward: 0.0, backward_input: 0.0, backward_weight: 0.0, transfer: 0.0 };
    simulate(schedules, &free)?;
    Ok(Proof { in_flight })
}

/// One part of a microbatch's way through a stage.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Input,
    Forward,
    Output,
    OutputGradient,
    BackwardInput,
    InputGradient,
    BackwardWeight,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "received activation",
            Self::Forward => "forward pass",
            Self::Output => "sent activation",
            Self::OutputGradient => "received gradient",
            Self::BackwardInput => "input half of the backward pass",
            Self::InputGradient => "sent gradient",
            Self::BackwardWeight => "weight half of the backward pass",
        }
    }
}

/// What one stage has done so far.
struct Ledger {
    stage: usize,
    stages: usize,
    done: HashSet<(Part, usize)>,
}

impl Ledger {
    fn new(stage: usize, stages: usize) -> Self {
        Self { stage, stages, done: HashSet::new() }
    }

    /// The parts of a microbatch's way on this stage, each after the one it needs.
    fn parts(&self) -> Vec<(Part, Option<Part>)> {
        let (is_first, is_last) = (self.stage == 0, self.stage + 1 == self.stages);
        let mut parts = Vec::new();
        if !is_first {
            parts.push((Part::Input, None));
        }
        parts.push((Part::Forward, (!is_first).then_some(Part::Input)));
        if !is_last {
            parts.push((Part::Output, Some(Part::Forward)));
            parts.push((Part::OutputGradient, None));
        }
        parts.push((Part::BackwardInput, Some(Part::Forward)));
        if !is_last {
            parts.push((Part::BackwardInput, Some(Part::OutputGradient)));
        }
        if !is_first {
            parts.push((Part::InputGradient, Some(Part::BackwardInput)));
        }
        parts.push((Part::BackwardWeight, Some(Part::BackwardInput)));
        parts
    }

    /// Checks one stage's list; the most microbatches in flight.
    fn walk(mut self, actions: &[Action], microbatches: usize) -> Result<usize, Fault> {
        let parts = self.parts();
        let entry = parts[0].0;
        let (mut flying, mut most) = (0usize, 0);
        for (index, &action) in actions.iter().enumerate() {
            for (part, microbatch) in self.parts_of(action)? {
                for (_, needs) in parts.iter().filter(|(p, _)| *p == part) {
                    if let Some(needs) = needs.filter(|&needs| !self.done.contains(&(needs, microbatch))) {
                        return Err(Fault::Order { stage: self.stage, index, action, needs: needs.name() });
                    }
                }
                if !self.done.insert((part, microbatch)) {
                    return Err(Fault::Twice { stage: self.stage, index, action });
                }
                flying += usize::from(part == entry);
                most = most.max(flying);
                flying -= usize::from(part == Part::BackwardWeight);
            }
        }
        let all = (0..microbatches).flat_map(|m| parts.iter().map(move |&(part, _)| (part, m)));
        match all.into_iter().find(|key| !self.done.contains(key)) {
            Some((part, microbatch)) => {
                Err(Fault::Missing { stage: self.stage, microbatch, part: part.name() })
            }
            None => Ok(most),
        }
    }

    /// Which parts of which microbatches an action does.
    fn parts_of(&self, action: Action) -> Result<Vec<(Part, usize)>, Fault> {
        if let Action::Exchange { send, receive } = action
            && send.to(self.stage) != receive.from(self.stage)
        {
            return Err(Fault::NoNeighbour { stage: self.stage, message: receive });
        }
        Ok(match action {
            Action::Forward(m) => vec![(Part::Forward, m)],
            Action::BackwardInput(m) => vec![(Part::BackwardInput, m)],
            Action::BackwardWeight(m) => vec![(Part::BackwardWeight, m)],
            _ => halves(action, self.stage, self.stages)?
                .map(|(_, message, mine)| match (message, mine) {
                    (Message::Activation(m), true) => (Part::Output, m),
                    (Message::Activation(m), false) => (Part::Input, m),
                    (Message::Gradient(m), true) => (Part::InputGradient, m),
                    (Message::Gradient(m), false) => (Part::OutputGradient, m),
                })
                .collect(),
        })
    }
}
