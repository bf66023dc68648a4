//! What a run is asked to do.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::model::{Shape, VOCABULARY};
use crate::parallel::mesh::Degrees;

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// It stays.
    Constant,
    /// Half a cosine, down to a tenth by the last step.
    Cosine,
}

/// The settings of a training run. The defaults train a network of 0.84 million parameters on the text of
/// the current folder for about a minute on two cores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ranks that share every layer (tensor parallelism). Divides `heads` and 256. Default 1.
    pub tp: usize,
    /// Stages that the layers are divided into (pipeline parallelism). Divides `layers`. Default 1.
    pub pp: usize,

    /// Decoder layers. Default 4.
    pub layers: usize,
    /// Elements of the residual stream. Default 128.
    pub width: usize,
    /// Attention heads; they divide `width`. Default 4.
    pub heads: usize,
    /// Tokens (bytes) per sequence. Default 128.
    pub context: usize,

    /// Sequences per step, over all replicas. Default 16.
    pub batch: usize,
    /// Microbatches that each replica's share of a step is cut into. Default: none given, which means one
    /// without a pipeline, else the largest divisor of the share that is at most twice the stages.
    pub microbatches: Option<usize>,
    /// Steps to train. Default 500.
    pub steps: usize,
    /// The highest learning rate. Default 3e-3.
    pub learning_rate: f64,
    /// How it goes on after the warm-up. Default: cosine.
    pub rate: Rate,
    /// Steps over which the rate rises from zero. Default 50.
    pub warm_up: usize,
    /// Decoupled weight decay, on all tensors. Default 0.1.
    pub weight_decay: f64,
    /// The largest global norm of the gradients; none does not clip. Default 1.
    pub clip: Option<f64>,
    /// Of the initial values, the order of the data, the sample. Default 1.
    pub seed: u64,

    /// Files and folders to train on; empty means the current folder. Default empty.
    pub text: Vec<PathBuf>,
    /// A folder for the checkpoint (`model.safetensors`, `config.json`); none writes none. Default none.
    pub output: Option<PathBuf>,
    /// Bytes of text to generate at the end. Default 400.
    pub sample: usize,
    /// Divides the logits before sampling: small is timid, 1 is the model's own distribution. Default 0.8.
    pub temperature: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tp: 1,
            pp: 1,
            layers: 4,
            width: 128,
            heads: 4,
            context: 128,
            batch: 16,
            microbatches: None,
            steps: 500,
            learning_rate: 3e-3,
            rate: Rate::Cosine,
            warm_up: 50,
            weight_decay: 0.1,
            clip: Some(1.0),
            seed: 1,
            text: Vec::new(),
            output: None,
            sample: 400,
            temperature: 0.8,
        }
    }
}

/// Settings that fit together and the number of ranks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) degrees: Degrees,
    pub(crate) shape: Shape,
    /// Microbatches per replica and step.
    pub(crate) microbatches: usize,
    /// Sequences in a microbatch.
    pub(crate) sequences: usize,
}

impl Settings {
    /// Checks that the settings fit together and `ranks`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`], one line: what is wrong and what would do.
    pub fn validate(&self, ranks: usize) -> Result<()> {
        self.layout(ranks).map(drop)
    }

    /// The degrees of parallelism and the sizes that follow.
    pub(crate) fn layout(&self, ranks: usize) -> Result<Layout> {
        let Self { tp, pp, layers, width, heads, context, batch, .. } = *self;
        let counts = [
            ("tp", tp),
            ("pp", pp),
            ("layers", layers),
            ("width", width),
            ("heads", heads),
            ("context", context),
            ("batch", batch),
            ("microbatches", self.microbatches.unwrap_or(1)),
            ("ranks", ranks),
        ];
        for (name, count) in counts {
            require(count > 0, || format!("{name} must be at least 1"))?;
            require(count <= 1 << 20, || format!("{name} {count} is beyond the limit of {}", 1 << 20))?;
        }
        require(ranks.is_multiple_of(tp * pp), || {
            format!(
                "{ranks} ranks cannot form a mesh of tp {tp} x pp {pp}: ranks must be a multiple of {}",
                tp * pp
            )
        })?;
        let dp = ranks / (tp * pp);
        let divides = |what: &str, whole: usize, by: &str, part: usize| {
            require(whole.is_multiple_of(part), || {
                format!("{what} ({whole}) must be a multiple of {by} ({part})")
            })
        };
        divides("layers", layers, "pp", pp)?;
        divides("width", width, "heads", heads)?;
        divides("heads", heads, "tp", tp)?;
        divides("the vocabulary", VOCABULARY, "tp", tp)?;
        divides("batch", batch, "dp", dp)?;
        let share = batch / dp;
        let most = if pp == 1 { 1 } else { (2 * pp).min(share) };
        let fitting = || (1..=most).rev().find(|m| share.is_multiple_of(*m)).unwrap_or(1);
        let microbatches = self.microbatches.unwrap_or_else(fitting);
        divides("a replica's share of the batch", share, "microbatches", microbatches)?;
        self.check_numbers()?;
        Ok(Layout {
            degrees: Degrees { dp, tp, pp },
            shape: Shape { layers, width, heads, context },
            microbatches,
            sequences: share / microbatches,
        })
    }

    fn check_numbers(&self) -> Result<()> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let named = [
            ("learning rate", self.learning_rate),
            ("temperature", self.temperature),
            ("clip", self.clip.unwrap_or(1.0)),
        ];
        for (name, value) in named {
            require(positive(value), || format!("{name} must be a positive number, not {value}"))?;
        }
        let decay = self.weight_decay;
        require(decay.is_finite() && decay >= 0.0, || {
            format!("weight decay must not be negative, not {decay}")
        })
    }
}

/// An error unless `holds`.
fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Settings(otherwise())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_usual_layouts() {
        for (ranks, tp, pp) in [(1, 1, 1), (4, 1, 1), (4, 4, 1), (4, 1, 4), (4, 2, 2), (8, 2, 2)] {
            let layout = Settings { tp, pp, ..Settings::default() }.layout(ranks).unwrap();
            assert_eq!(layout.degrees.ranks(), ranks);
            assert_eq!(layout.microbatches * layout.sequences * layout.degrees.dp, 16);
        }
    }

    #[test]
    fn misfits_are_named() {
        let says = |settings: Settings, ranks: usize| settings.validate(ranks).unwrap_err().to_string();
        let base = Settings::default;
        assert_eq!(
            says(Settings { tp: 2, pp: 2, ..base() }, 6),
            "6 ranks cannot form a mesh of tp 2 x pp 2: ranks must be a multiple of 4"
        );
        assert_eq!(says(Settings { pp: 3, ..base() }, 3), "layers (4) must be a multiple of pp (3)");
        assert_eq!(says(Settings { tp: 8, ..base() }, 8), "heads (4) must be a multiple of tp (8)");
        let odd = Settings { tp: 3, heads: 3, width: 129, ..base() };
        assert_eq!(says(odd, 3), "the vocabulary (256) must be a multiple of tp (3)");
        assert_eq!(says(Settings { heads: 3, ..base() }, 1), "width (128) must be a multiple of heads (3)");
        assert_eq!(says(base(), 3), "batch (16) must be a multiple of dp (3)");
        let cut = Settings { microbatches: Some(3), ..base() };
        assert_eq!(
            says(cut, 1),
            "a replica's share of the batch (16) must be a multiple of microbatches (3)"
        );
        assert_eq!(says(Settings { batch: 0, ..base() }, 1), "batch must be at least 1");
        assert_eq!(
            says(Settings { learning_rate: f64::NAN, ..base() }, 1),
            "learning rate must be a positive number, not NaN"
        );
    }
}
