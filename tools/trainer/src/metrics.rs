//! What a run tells about itself: per step the loss, the speed, and what communication took.

use std::io::Write;
use std::iter::Sum;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::train::Summary;

/// The calls that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collective {
    /// Sums and maxima over a group.
    AllReduce,
    /// The text, once.
    Broadcast,
    /// The checkpoint, once.
    Gather,
    /// To a neighbouring stage.
    Send,
    /// From a neighbouring stage.
    Receive,
    /// Both at once with a neighbouring stage.
    Exchange,
}

impl Collective {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::AllReduce, Self::Broadcast, Self::Gather, Self::Send, Self::Receive, Self::Exchange];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::Broadcast => "broadcast",
            Self::Gather => "gather_v",
            Self::Send => "send",
            Self::Receive => "recv",
            Self::Exchange => "send_recv",
        }
    }
}

/// What calls of one kind took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// Bytes of this rank's own buffers: what it contributes or receives, not what the algorithm moves.
    pub bytes: u64,
    /// Time inside the calls, waiting for other ranks included.
    pub seconds: f64,
}

/// What all calls took, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    calls: [Calls; Collective::ALL.len()],
}

impl Traffic {
    /// What calls of this kind took.
    pub fn of(&self, collective: Collective) -> Calls {
        self.calls[collective as usize]
    }

    /// Time inside calls of any kind.
    pub fn seconds(&self) -> f64 {
        self.calls.iter().map(|calls| calls.seconds).sum()
    }

    pub(crate) fn add(&mut self, collective: Collective, bytes: u64, elapsed: Duration) {
        let calls = &mut self.calls[collective as usize];
        calls.count += 1;
        calls.bytes += bytes;
        calls.seconds += elapsed.as_secs_f64();
    }

    /// As plain numbers, so that ranks can add theirs; [`Traffic::from_numbers`] is the inverse.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.calls.into_iter().flat_map(|calls| [calls.count as f64, calls.bytes as f64, calls.seconds])
    }

    pub(crate) fn from_numbers(numbers: &[f64]) -> Self {
        let mut traffic = Self::default();
        for (calls, numbers) in traffic.calls.iter_mut().zip(numbers.chunks_exact(3)) {
            *calls = Calls { count: numbers[0] as u64, bytes: numbers[1] as u64, seconds: numbers[2] };
        }
        traffic
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |mut total, part| {
            for (total, part) in total.calls.iter_mut().zip(part.calls) {
                total.count += part.count;
                total.bytes += part.bytes;
                total.seconds += part.seconds;
            }
            total
        })
    }
}

/// What a run is about to do.
#[derive(Clone, Debug)]
pub struct Start {
    /// Ranks along the data, tensor and pipeline axes.
    pub mesh: [usize; 3],
    /// Parameters of the whole network, the tied table once.
    pub parameters: usize,
    /// Bytes of text.
    pub text: usize,
    /// Steps to take.
    pub steps: usize,
    /// Sequences in a step over all ranks, and tokens in a sequence.
    pub batch: [usize; 2],
    /// Microbatches that a replica's share of a step is cut into.
    pub microbatches: usize,
    /// The share of a pipeline's time in which its stages stand still, by the schedule's simulation.
    pub bubble: f64,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Counted from 1.
    pub step: usize,
    /// Mean loss per token over the whole batch, in nats, before the step's update.
    pub loss: f64,
    /// The gradients' global norm before clipping.
    pub norm: f64,
    /// The rate of this step.
    pub learning_rate: f64,
    /// Wall time.
    pub seconds: f64,
    /// Tokens of the whole batch per second.
    pub tokens_per_second: f64,
    /// The share of all ranks' time spent inside communication calls, waiting included.
    pub communication: f64,
    /// All ranks' calls together.
    pub traffic: Traffic,
}

/// Receives the progress of a run; called on rank 0 only.
pub trait Report {
    /// Before the first step.
    fn start(&mut self, _start: &Start) -> Result<()> {
        Ok(())
    }

    /// After each step.
    fn step(&mut self, step: &Step) -> Result<()>;

    /// At the end.
    fn finish(&mut self, _summary: &Summary) -> Result<()> {
        Ok(())
    }
}

/// Reports nothing.
impl Report for () {
    fn step(&mut self, _step: &Step) -> Result<()> {
        Ok(())
    }
}

/// A report as JSON, one object to a line, flushed line by line.
///
/// ```text
/// {"event":"start","dp":1,"tp":2,"pp":2,"parameters":842496,...}
/// {"event":"step","step":1,"loss":5.55,...,"collectives":{"all_reduce":{"calls":98,"bytes":..,"seconds":..}}}
/// {"event":"finish","seconds":61.2,...}
/// ```
pub struct JsonLines<W>(W);

impl<W: Write> JsonLines<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self(output)
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.0, "{value}")?;
        Ok(self.0.flush()?)
    }
}

impl<W: Write> Report for JsonLines<W> {
    fn start(&mut self, start: &Start) -> Result<()> {
        let Start { mesh: [dp, tp, pp], batch: [batch, context], .. } = *start;
        self.line(&json!({
            "event": "start", "dp": dp, "tp": tp, "pp": pp, "parameters": start.parameters,
            "text_bytes": start.text, "steps": start.steps, "batch": batch, "context": context,
            "microbatches": start.microbatches, "bubble": start.bubble,
        }))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let collectives: Map<String, Value> = Collective::ALL
            .into_iter()
            .map(|collective| (collective.name(), step.traffic.of(collective)))
            .filter(|(_, calls)| calls.count > 0)
            .map(|(name, calls)| {
                let value = json!({"calls": calls.count, "bytes": calls.bytes, "seconds": calls.seconds});
                (name.to_owned(), value)
            })
            .collect();
        self.line(&json!({
            "event": "step", "step": step.step, "loss": step.loss, "gradient_norm": step.norm,
            "learning_rate": step.learning_rate, "seconds": step.seconds,
            "tokens_per_second": step.tokens_per_second, "communication": step.communication,
            "collectives": collectives,
        }))
    }

    fn finish(&mut self, summary: &Summary) -> Result<()> {
        self.line(&json!({
            "event": "finish", "steps": summary.losses.len(), "first_loss": summary.losses.first(),
            "last_loss": summary.losses.last(), "seconds": summary.seconds,
            "checkpoint": summary.checkpoint, "sample": summary.sample,
        }))
    }
}
