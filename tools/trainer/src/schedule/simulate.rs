//! Walks the schedules of all stages together, on paper.
//!
//! Transfers are rendezvous: a message passes when both its sender and its receiver have come to it, the
//! strictest thing that a blocking send may do. Each stage is sequential and receives from a named
//! neighbour only, so the stages form a Kahn process network: whether they finish does not depend on
//! timing, and one run settles it.

use std::collections::HashMap;

use super::{Action, Fault, Message};

/// What actions take, in any unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Of one microbatch's forward pass through a stage.
    pub forward: f64,
    /// Of the input half of its backward pass.
    pub backward_input: f64,
    /// Of the weight half.
    pub backward_weight: f64,
    /// Of one message, once both sides have come to it.
    pub transfer: f64,
}

/// When a simulated step ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The end of the last stage to finish.
    pub end: f64,
    /// Per stage, the time spent in forward and backward passes.
    pub busy: Vec<f64>,
}

impl Timeline {
    /// The share of all stages' time in which they stand still or transfer.
    pub fn bubble(&self) -> f64 {
        1.0 - self.busy.iter().sum::<f64>() / (self.end * self.busy.len() as f64)
    }
}

/// A stage on its way through its list.
#[derive(Clone, Copy, Default)]
struct Cursor {
    next: usize,
    clock: f64,
}

/// Simulates one step of `schedules`, one list for each stage.
///
/// # Errors
///
/// [`Fault::Deadlock`] when the stages wait for each other, [`Fault::NoNeighbour`] when a message leaves
/// the pipeline.
pub fn simulate(schedules: &[Vec<Action>], costs: &Costs) -> Result<Timeline, Fault> {
    let mut cursors = vec![Cursor::default(); schedules.len()];
    let mut busy = vec![0.0; schedules.len()];
    // When each side came to a message: (sender, message) -> time, for senders and for receivers.
    let mut offered = HashMap::new();
    let mut awaited = HashMap::new();
    loop {
        let mut moved = false;
        for (stage, actions) in schedules.iter().enumerate() {
            while let Some(&action) = actions.get(cursors[stage].next) {
                let cursor = &mut cursors[stage];
                if let Some(cost) = cost_of(action, costs) {
                    cursor.clock += cost;
                    busy[stage] += cost;
                } else {
                    let mut end = Some(cursor.clock);
                    for (sender, message, mine) in halves(action, stage, schedules.len())? {
                        let (own, other) =
                            if mine { (&mut offered, &awaited) } else { (&mut awaited, &offered) };
                        let came: f64 = *own.entry((sender, message)).or_insert(cursor.clock);
                        let met = other.get(&(sender, message)).map(|t: &f64| t.max(came) + costs.transfer);
                        end = end.zip(met).map(|(end, met)| end.max(met));
                    }
                    let Some(end) = end else { break };
                    cursor.clock = end;
                }
                cursor.next += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let stuck = cursors.iter().zip(schedules).enumerate().filter(|(_, (c, actions))| c.next < actions.len());
    let waits: Vec<_> = stuck.map(|(stage, (cursor, actions))| (stage, actions[cursor.next])).collect();
    if !waits.is_empty() {
        return Err(Fault::Deadlock { waits });
    }
    Ok(Timeline { end: cursors.iter().fold(0.0, |end, cursor| end.max(cursor.clock)), busy })
}

/// What a computation costs; nothing for transfers.
fn cost_of(action: Action, costs: &Costs) -> Option<f64> {
    match action {
        Action::Forward(_) => Some(costs.forward),
        Action::BackwardInput(_) => Some(costs.backward_input),
        Action::BackwardWeight(_) => Some(costs.backward_weight),
        Action::Send(_) | Action::Receive(_) | Action::Exchange { .. } => None,
    }
}

/// The messages of a transfer: who sends it, what, and whether that is `stage` itself.
pub(super) fn halves(
    action: Action,
    stage: usize,
    stages: usize,
) -> Result<impl Iterator<Item = (usize, Message, bool)>, Fault> {
    let (send, receive) = match action {
        Action::Send(message) => (Some(message), None),
        Action::Receive(message) => (None, Some(message)),
        Action::Exchange { send, receive } => (Some(send), Some(receive)),
        _ => (None, None),
    };
    let lost = |message| Fault::NoNeighbour { stage, message };
    if let Some(message) = send {
        message.to(stage).filter(|&to| to < stages).ok_or(lost(message))?;
    }
    let received = match receive {
        Some(message) => {
            let from = message.from(stage).filter(|&from| from < stages).ok_or(lost(message))?;
            Some((from, message, false))
        }
        None => None,
    };
    Ok(send.map(|message| (stage, message, true)).into_iter().chain(received))
}
