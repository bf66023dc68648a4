//! What can go wrong, each with one line for the person at the terminal.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the trainer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other or the number of ranks.
    #[error("{0}")]
    Settings(String),
    /// The text cannot be trained on: missing, empty, too short, not text.
    #[error("{0}")]
    Text(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A report could not be written.
    #[error("cannot write the report: {0}")]
    Report(#[from] io::Error),
    /// The loss or the gradients are no longer finite numbers.
    #[error("step {step}: the loss is {loss}, the norm of the gradients {norm}: lower the learning rate")]
    Diverged {
        /// The step, counted from 0.
        step: usize,
        /// The mean loss over the step's tokens.
        loss: f64,
        /// The gradients' global norm.
        norm: f64,
    },
    /// Rank 0 failed before the first step; its own error says why, so this one need not be shown.
    #[error("rank 0 could not prepare the training; its message says why")]
    Root,
    /// A collective failed.
    #[error(transparent)]
    Communication(#[from] kolo::Error),
}

impl Error {
    /// Whether the caller asked for something that cannot be (exit code 2), rather than something failing.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Text(_))
    }

    /// Whether another rank shows the cause, so that showing this one as well would only be noise.
    pub fn is_echo(&self) -> bool {
        matches!(self, Self::Root)
    }

    pub(crate) fn file(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), cause }
    }
}

/// The trainer's results.
pub type Result<T> = std::result::Result<T, Error>;
