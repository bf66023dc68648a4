//! Walks a stage's schedule over its microbatches.

use super::mesh::Mesh;
use crate::error::Result;
use crate::math::Real;
use crate::model::stage::{Batch, Stage, Tape};
use crate::schedule::{Action, Message, one_forward_one_backward, verify};

/// A stage's list of actions and the tapes that it takes. Microbatches enter and leave a stage in order,
/// so microbatch `m` uses tape `m % tapes`.
pub(crate) struct Pipeline<R> {
    actions: Vec<Action>,
    tapes: Vec<Tape<R>>,
}

impl<R: Real> Pipeline<R> {
    /// The schedule of the mesh's stage, proved together with all others'.
    pub(crate) fn new(stage: &Stage<R>, mesh: &Mesh, microbatches: usize) -> Self {
        let stages = mesh.degrees.pp;
        let schedules = schedules(stages, microbatches);
        let proof = verify(&schedules, microbatches, |stage| stages - stage + 1)
            .unwrap_or_else(|fault| panic!("the trainer's own schedule: {fault}"));
        let tapes = (0..proof.in_flight[mesh.place.stage]).map(|_| stage.tape()).collect();
        Self { actions: schedules.into_iter().nth(mesh.place.stage).unwrap_or_default(), tapes }
    }

    /// One pass over `batches`, one for each microbatch: the sum of the tokens' losses (zero before the
    /// last stage); `gradients` receives the sum over the microbatches of `weight` times the losses'.
    pub(crate) fn run(
        &mut self,
        stage: &Stage<R>,
        gradients: &mut [R],
        batches: &[Batch],
        weight: R,
        mesh: &mut Mesh,
    ) -> Result<f64> {
        let count = self.tapes.len();
        let mut loss = 0.0;
        for &action in &self.actions {
            match action {
                Action::Forward(m) => {
                    let tape = &mut self.tapes[m % count];
                    loss += stage.forward(&batches[m], weight, tape, &mut mesh.tensor)?;
                }
                Action::BackwardInput(m) => {
                    stage.backward_input(&mut self.tapes[m % count], &mut mesh.tensor)?;
                }
                Action::BackwardWeight(m) => {
                    stage.backward_weight(&batches[m], &self.tapes[m % count], gradients);
                }
                Action::Send(message) => {
                    let to = neighbour(message.to(mesh.place.stage));
                    mesh.pipeline.send(outgoing(&self.tapes[slot(message, count)], message), to)?;
                }
                Action::Receive(message) => {
                    let from = neighbour(message.from(mesh.place.stage));
                    let tape = &mut self.tapes[slot(message, count)];
                    mesh.pipeline.receive(incoming(tape, message), from)?;
                }
                Action::Exchange { send, receive } => {
                    let with = neighbour(send.to(mesh.place.stage));
                    let slots = [slot(send, count), slot(receive, count)];
                    let [from, into] =
                        self.tapes.get_disjoint_mut(slots).expect("both microbatches are in flight");
                    mesh.pipeline.exchange(outgoing(from, send), incoming(into, receive), with)?;
                }
            }
        }
        Ok(loss)
    }
}

/// The lists of all stages.
pub(crate) fn schedules(stages: usize, microbatches: usize) -> Vec<Vec<Action>> {
    (0..stages).map(|stage| one_forward_one_backward(stage, stages, microbatches)).collect()
}

/// The tape of a message's microbatch.
fn slot(message: Message, tapes: usize) -> usize {
    match message {
        Message::Activation(m) | Message::Gradient(m) => m % tapes,
    }
}

/// The stage at the other end.
fn neighbour(stage: Option<usize>) -> usize {
    stage.expect("a verified schedule sends to neighbours only")
}

/// Where a message to be sent lies.
fn outgoing<R>(tape: &Tape<R>, message: Message) -> &[R] {
    match message {
        Message::Activation(_) => tape.output(),
        Message::Gradient(_) => &tape.gradient,
    }
}

/// Where a received message goes.
fn incoming<R>(tape: &mut Tape<R>, message: Message) -> &mut [R] {
    match message {
        Message::Activation(_) => tape.input(),
        Message::Gradient(_) => &mut tape.gradient,
    }
}
