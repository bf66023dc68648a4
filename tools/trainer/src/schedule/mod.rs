//! Pipeline schedules as data: a pure function of (stage, stages, microbatches) to the list of actions that
//! the stage takes in one step. [`verify()`] proves a schedule, [`simulate()`] tells its bubble, the trainer
//! walks it.
//!
//! 1F1B with the backward pass in two halves, three stages and four microbatches; the weight half `w` of a
//! microbatch runs once its input half `b` has been sent on, so the stage before waits for `b` alone:
//!
//! ```text
//! time     0  1  2  3  4  5  6  7  8  9  10 11 12 13 14 15
//! stage 0  F0 F1 F2 .  .  B0 w0 F3 B1 w1 .  B2 w2 .  B3 w3
//! stage 1  .  F0 F1 .  B0 w0 F2 B1 w1 F3 B2 w2 .  B3 w3
//! stage 2  .  .  F0 B0 w0 F1 B1 w1 F2 B2 w2 F3 B3 w3
//! ```

mod simulate;
mod verify;

pub use simulate::{Costs, Timeline, simulate};
pub use verify::{Fault, Proof, verify};

/// What a stage does next; the number is the microbatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Activations through the stage's layers.
    Forward(usize),
    /// The half of the backward pass that another stage waits for: the gradient of the stage's input.
    BackwardInput(usize),
    /// The other half, which needs no other stage: the gradients of the parameters.
    BackwardWeight(usize),
    /// Sends to a neighbour; may wait until it receives.
    Send(Message),
    /// Receives from a neighbour.
    Receive(Message),
    /// Both at once with one neighbour, which does the same: neither half waits for the other.
    Exchange {
        /// To the neighbour.
        send: Message,
        /// From the same neighbour.
        receive: Message,
    },
}

/// What passes between neighbouring stages; the number is the microbatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    /// A stage's output, to the next stage.
    Activation(usize),
    /// The gradient of a stage's input, to the stage before.
    Gradient(usize),
}

impl Message {
    /// The stage it goes to when `stage` sends it.
    pub fn to(self, stage: usize) -> Option<usize> {
        match self {
            Self::Activation(_) => Some(stage + 1),
            Self::Gradient(_) => stage.checked_sub(1),
        }
    }

    /// The stage it comes from when `stage` receives it.
    pub fn from(self, stage: usize) -> Option<usize> {
        match self {
            Self::Activation(_) => stage.checked_sub(1),
            Self::Gradient(_) => Some(stage + 1),
        }
    }
}

/// One forward, one backward (PipeDream-flush, Narayanan et al. 2021), the backward pass in halves (Qi et
/// al., "Zero bubble pipeline parallelism", 2023). At most `stages - stage + 1` microbatches are in flight.
pub fn one_forward_one_backward(stage: usize, stages: usize, microbatches: usize) -> Vec<Action> {
    use Action::{BackwardInput, BackwardWeight, Exchange, Forward, Receive, Send};
    use Message::{Activation, Gradient};
    let (is_first, is_last) = (stage == 0, stage + 1 == stages);
    let warm_up = (stages - 1 - stage).min(microbatches);
    let steady = microbatches - warm_up;
    let mut actions = Vec::with_capacity(6 * microbatches);
    let mut act = |wanted: bool, action: Action| actions.extend(wanted.then_some(action));

    for m in 0..warm_up {
        act(!is_first, Receive(Activation(m)));
        act(true, Forward(m));
        act(!is_last, Send(Activation(m)));
    }
    act(!is_first && steady > 0, Receive(Activation(warm_up)));
    for done in 0..steady {
        let ahead = warm_up + done;
        act(true, Forward(ahead));
        act(!is_last, Exchange { send: Activation(ahead), receive: Gradient(done) });
        act(true, BackwardInput(done));
        if done + 1 < steady {
            act(!is_first, Exchange { send: Gradient(done), receive: Activation(ahead + 1) });
        } else {
            act(!is_first, Send(Gradient(done)));
        }
        act(true, BackwardWeight(done));
    }
    for m in steady..microbatches {
        act(!is_last, Receive(Gradient(m)));
        act(true, BackwardInput(m));
        act(!is_first, Send(Gradient(m)));
        act(true, BackwardWeight(m));
    }
    actions
}
