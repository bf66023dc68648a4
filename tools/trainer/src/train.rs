//! The training loop of one rank.

use std::path::PathBuf;
use std::time::Instant;

use kolo::Communicator;

use crate::checkpoint::{self, Weights};
use crate::data::{self, Text};
use crate::error::{Error, Result};
use crate::metrics::{Report, Start, Step, Traffic};
use crate::model::arena::Arena;
use crate::model::parameters::Table;
use crate::model::stage::{Batch, Stage};
use crate::model::{Share, VOCABULARY};
use crate::optimizer::{self, AdamW};
use crate::parallel::mesh::{Degrees, Mesh};
use crate::parallel::pipeline::{Pipeline, schedules};
use crate::sample;
use crate::schedule::{Costs, simulate};
use crate::settings::{Layout, Settings};

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The mean loss per token of every step, in nats, on every rank.
    pub losses: Vec<f64>,
    /// Wall time of the steps.
    pub seconds: f64,
    /// Where the checkpoint was written, at rank 0.
    pub checkpoint: Option<PathBuf>,
    /// Generated text, at rank 0.
    pub sample: Option<String>,
}

/// Trains as one rank of `communicator`; every rank calls this with the same settings. `report` hears of
/// the progress on rank 0 alone.
///
/// # Errors
///
/// Settings that do not fit the ranks, text that cannot be trained on (rank 0 says why, the others return
/// [`Error::Root`]), files that cannot be written, a loss that is no number, a failed collective.
pub fn train(communicator: Communicator, settings: &Settings, report: &mut dyn Report) -> Result<Summary> {
    let layout = settings.layout(communicator.size())?;
    let is_root = communicator.rank() == 0;
    let mut mesh = Mesh::new(communicator, layout.degrees)?;
    let read = if is_root { prepare(settings) } else { Ok(Vec::new()) };
    let text = Text::share(read, &mut mesh.world)?;
    if is_root {
        report.start(&start(settings, &layout, &text))?;
    }

    let mut trainer = Trainer::new(settings, layout, mesh, text);
    let mut summary = Summary::default();
    let began = Instant::now();
    for step in 0..settings.steps {
        let done = trainer.step(step)?;
        summary.losses.push(done.loss);
        if is_root {
            report.step(&done)?;
        }
    }
    summary.seconds = began.elapsed().as_secs_f64();
    trainer.finish(&mut summary)?;
    if is_root {
        report.finish(&summary)?;
    }
    Ok(summary)
}

/// What rank 0 does before all others: reads the text, makes sure of the output.
fn prepare(settings: &Settings) -> Result<Vec<u8>> {
    if let Some(folder) = &settings.output {
        checkpoint::prepare(folder)?;
    }
    data::read_all(&settings.text, settings.context)
}

/// What the run is about to do.
fn start(settings: &Settings, layout: &Layout, text: &Text) -> Start {
    let Degrees { dp, tp, pp } = layout.degrees;
    let whole = Table::new(&layout.shape, &Share::WHOLE);
    let equal = Costs { forward: 1.0, backward_input: 1.0, backward_weight: 1.0, transfer: 0.0 };
    let timeline = simulate(&schedules(pp, layout.microbatches), &equal);
    Start {
        mesh: [dp, tp, pp],
        parameters: whole.tensors.iter().map(|tensor| tensor.whole[0] * tensor.whole[1]).sum(),
        text: text.len(),
        steps: settings.steps,
        batch: [settings.batch, settings.context],
        microbatches: layout.microbatches,
        bubble: timeline.map_or(0.0, |timeline| timeline.bubble()),
    }
}

/// One rank's state.
struct Trainer<'a> {
    settings: &'a Settings,
    layout: Layout,
    mesh: Mesh,
    text: Text,
    stage: Stage<f32>,
    gradients: Arena<f32>,
    optimizer: AdamW<f32>,
    pipeline: Pipeline<f32>,
    /// When the last step ended.
    mark: Instant,
}

impl<'a> Trainer<'a> {
    fn new(settings: &'a Settings, layout: Layout, mesh: Mesh, text: Text) -> Self {
        let share = mesh.degrees.share(&mesh.place);
        let stage = Stage::new(&layout.shape, &share, layout.sequences, settings.seed);
        Self {
            gradients: Arena::zeros(stage.table.len),
            optimizer: AdamW::new(stage.table.len, settings.weight_decay),
            pipeline: Pipeline::new(&stage, &mesh, layout.microbatches),
            stage,
            settings,
            layout,
            mesh,
            text,
            mark: Instant::now(),
        }
    }

    /// Gradients of the whole batch, the clip, the update.
    fn step(&mut self, step: usize) -> Result<Step> {
        let tokens = self.settings.batch * self.layout.shape.context;
        let weight = (1.0 / tokens as f64) as f32;
        let batches = self.batches(step);
        let (stage, mesh) = (&self.stage, &mut self.mesh);
        let loss = self.pipeline.run(stage, &mut self.gradients, &batches, weight, mesh)?;

        // The tied table's gradient is the sum of the embedding's and the head's, wherever they are.
        if let Some(place) = &self.stage.table.places.tokens {
            self.mesh.tied.sum(&mut self.gradients[place.clone()])?;
        }
        self.mesh.data.sum(&mut self.gradients)?;
        let mut squares = [optimizer::squares(&self.stage.table, &self.gradients)];
        self.mesh.model.sum(&mut squares)?;
        let norm = squares[0].sqrt();

        let learning_rate = optimizer::learning_rate(self.settings, step);
        let done = self.measure(step, loss / tokens as f64, norm, learning_rate)?;
        if !done.loss.is_finite() || !norm.is_finite() {
            return Err(Error::Diverged { step, loss: done.loss, norm });
        }
        let scale = optimizer::clip(norm, self.settings.clip);
        self.optimizer.step(&mut self.stage.values, &mut self.gradients, scale, learning_rate);
        Ok(done)
    }

    /// This replica's microbatches of a step. Samples are numbered through the run, so that what a step
    /// sees does not depend on the layout.
    fn batches(&self, step: usize) -> Vec<Batch> {
        let Layout { microbatches, sequences, shape, .. } = self.layout;
        let first = step * self.settings.batch + self.mesh.place.replica * microbatches * sequences;
        (0..microbatches)
            .map(|m| {
                let first = first + m * sequences;
                self.text.batch(self.settings.seed, first..first + sequences, shape.context)
            })
            .collect()
    }

    /// Adds up over all ranks the losses and what communication took since the last step's end.
    fn measure(&mut self, step: usize, loss: f64, norm: f64, learning_rate: f64) -> Result<Step> {
        // Every tensor-parallel rank of a last stage holds the same loss: the first one's counts.
        let own_loss = if self.mesh.place.slice == 0 { loss } else { 0.0 };
        let traffic = self.mesh.take_traffic();
        let mut numbers: Vec<f64> = [own_loss].into_iter().chain(traffic.numbers()).collect();
        self.mesh.world.sum(&mut numbers)?;
        let traffic = Traffic::from_numbers(&numbers[1..]);
        let seconds = self.mark.elapsed().as_secs_f64();
        self.mark = Instant::now();
        let tokens = self.settings.batch * self.layout.shape.context;
        Ok(Step {
            step: step + 1,
            loss: numbers[0],
            norm,
            learning_rate,
            seconds,
            tokens_per_second: tokens as f64 / seconds,
            communication: (traffic.seconds() / (seconds * self.mesh.degrees.ranks() as f64)).min(1.0),
            traffic,
        })
    }

    /// The checkpoint and the sample, at rank 0.
    fn finish(mut self, summary: &mut Summary) -> Result<()> {
        let Settings { output, sample: count, temperature, seed, .. } = self.settings;
        if output.is_none() && *count == 0 {
            return Ok(());
        }
        let shape = self.layout.shape;
        let weights = Weights::gather(&self.stage, &shape, &mut self.mesh)?;
        if self.mesh.degrees.place(0) != self.mesh.place {
            return Ok(());
        }
        if let Some(folder) = output {
            weights.write(folder, &shape)?;
            summary.checkpoint = Some(folder.clone());
        }
        if *count > 0 {
            let stage = weights.stage(&shape);
            summary.sample = Some(sample::sample(&stage, &shape, *count, *temperature, *seed)?);
        }
        Ok(())
    }
}

const _: () = assert!(VOCABULARY == 1 << u8::BITS, "tokens are bytes");
