//! `kolo train`: flags, progress and results of the trainer.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kolo::Communicator;
use kolo_trainer::{JsonLines, Report, Settings, Start, Step, Summary};

use crate::ranks::Ranks;
use crate::run::{check_transport, parse_ranks};

/// Lines of progress where there is no terminal to draw on.
const LINES: usize = 20;

const EXAMPLES: &str = "\
Examples:
  kolo train --ranks 4 --tp 2 --pp 2                    on the text of this folder
  kolo train --ranks 4 --text src README.md --steps 200 --out model --metrics run.jsonl
  kolo train --ranks 2 --tp 2 --layers 8 --dim 256 --heads 8 --context 256
  mpirun -n 4 kolo train --tp 4";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many ranks to start [default: tp x pp; under a launcher, those it started]
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_ranks)]
    ranks: Option<usize>,

    /// Ranks that share every layer
    #[arg(long, value_name = "N", default_value_t = Settings::default().tp)]
    tp: usize,

    /// Stages that the layers are divided into; what remains of the ranks are replicas
    #[arg(long, value_name = "N", default_value_t = Settings::default().pp)]
    pp: usize,

    /// Files and folders to train on [default: this folder]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    text: Vec<PathBuf>,

    /// Steps to train
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps)]
    steps: usize,

    /// Decoder layers
    #[arg(long, value_name = "N", default_value_t = Settings::default().layers)]
    layers: usize,

    /// Elements of the residual stream
    #[arg(long, value_name = "N", default_value_t = Settings::default().width)]
    dim: usize,

    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = Settings::default().heads)]
    heads: usize,

    /// Bytes of text in a sequence
    #[arg(long, value_name = "N", default_value_t = Settings::default().context)]
    context: usize,

    /// Sequences in a step, over all replicas
    #[arg(long, value_name = "N", default_value_t = Settings::default().batch)]
    batch: usize,

    /// Pieces that each replica's share of a step is cut into [default: as suits the pipeline]
    #[arg(long, value_name = "N")]
    microbatches: Option<usize>,

    /// The highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = Settings::default().learning_rate)]
    lr: f64,

    /// Of the initial values, the order of the data, and the sample
    #[arg(long, value_name = "N", default_value_t = Settings::default().seed)]
    seed: u64,

    /// Bytes of text to generate at the end
    #[arg(long, value_name = "N", default_value_t = Settings::default().sample)]
    sample: usize,

    /// Write a checkpoint with Hugging Face names into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Write what every step took and cost, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl")]
    metrics: Option<PathBuf>,

    /// local (ranks are threads), shm, tcp [default: the fastest that reaches]
    #[arg(short = 't', long, value_name = "T")]
    transport: Option<String>,
}

impl Options {
    fn settings(&self) -> Settings {
        Settings {
            tp: self.tp,
            pp: self.pp,
            layers: self.layers,
            width: self.dim,
            heads: self.heads,
            context: self.context,
            batch: self.batch,
            microbatches: self.microbatches,
            steps: self.steps,
            learning_rate: self.lr,
            seed: self.seed,
            text: self.text.clone(),
            output: self.out.clone(),
            sample: self.sample,
            ..Settings::default()
        }
    }

    fn create_metrics(&self) -> Result<Option<File>> {
        let create =
            |path: &PathBuf| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        self.metrics.as_ref().map(create).transpose()
    }
}

/// Trains: as a rank of whoever started us, or else by starting ranks.
pub(crate) fn train(options: &Options) -> Result<u8> {
    check_transport(options.transport.as_deref())?;
    let settings = options.settings();
    let ranks = Ranks {
        asked: options.ranks,
        default: options.tp.saturating_mul(options.pp),
        transport: options.transport.as_deref(),
    };
    let check = |ranks, files| {
        settings.validate(ranks)?;
        if files { options.create_metrics().map(drop) } else { Ok(()) }
    };
    ranks.run(check, |communicator| run_rank(communicator, options, &settings))
}

fn run_rank(communicator: Communicator, options: &Options, settings: &Settings) -> Result<u8> {
    let metrics = if communicator.rank() == 0 { options.create_metrics()? } else { None };
    let mut console = Console {
        progress: ProgressBar::hidden(),
        metrics: metrics.map(|file| JsonLines::new(BufWriter::new(file))),
        steps: settings.steps,
    };
    kolo_trainer::train(communicator, settings, &mut console)?;
    Ok(0)
}

/// Tells a person how the training goes, and the metrics' file.
struct Console {
    progress: ProgressBar,
    metrics: Option<JsonLines<BufWriter<File>>>,
    steps: usize,
}

impl Report for Console {
    fn start(&mut self, start: &Start) -> kolo_trainer::Result<()> {
        let Start {
            mesh: [dp, tp, pp], batch: [batch, context], parameters, text, microbatches, bubble, ..
        } = *start;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{parameters} parameters, {text} bytes of text, {batch} sequences of {context} bytes a step"
        )?;
        writeln!(
            out,
            "dp {dp} x tp {tp} x pp {pp}, {microbatches} microbatches, {:.0}% of a step's pipeline idle",
            100.0 * bubble
        )?;
        if io::stderr().is_terminal() {
            self.progress = ProgressBar::new(self.steps as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {eta} left") {
                self.progress.set_style(style);
            }
        }
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.start(start))
    }

    fn step(&mut self, step: &Step) -> kolo_trainer::Result<()> {
        let said = format!(
            "loss {:.3}  {:.1}k tokens/s  {:2.0}% communication",
            step.loss,
            step.tokens_per_second / 1e3,
            100.0 * step.communication
        );
        let every = self.steps.div_ceil(LINES).max(1);
        if self.progress.is_hidden() && (step.step == 1 || step.step.is_multiple_of(every)) {
            writeln!(io::stdout(), "step {:5}/{}  {said}", step.step, self.steps)?;
        }
        self.progress.set_message(said);
        self.progress.set_position(step.step as u64);
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.step(step))
    }

    fn finish(&mut self, summary: &Summary) -> kolo_trainer::Result<()> {
        self.progress.finish_and_clear();
        let Summary { losses, seconds, checkpoint, sample } = summary;
        let mut out = io::stdout().lock();
        if let (Some(first), Some(last)) = (losses.first(), losses.last()) {
            writeln!(out, "loss {first:.3} -> {last:.3} in {} steps and {seconds:.1} s", losses.len())?;
        }
        if let Some(folder) = checkpoint {
            writeln!(out, "checkpoint in {}", folder.display())?;
        }
        if let Some(text) = sample {
            writeln!(out, "\nA sample:\n{text}")?;
        }
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.finish(summary))
    }
}
