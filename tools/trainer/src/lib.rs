//! kolo's trainer: a GPT-2-style decoder over bytes, trained by data, tensor and pipeline parallelism whose
//! every transfer goes through kolo's public collectives.
//!
//! ```text
//! train       the loop of one rank            settings   what is asked for, checked
//! ├─ data     text -> sequences               schedule   pipelines as data: proved, simulated
//! ├─ parallel groups, mesh, pipeline          metrics    reports
//! ├─ model    parameters, layers, stage       random     values as functions of their place
//! │  └─ math  the arithmetic on slices        checkpoint, sample
//! └─ optimizer
//! ```
//!
//! Initial values depend on (seed, tensor, index), data on (seed, number of the sequence): every layout of
//! the same batch starts from the same bits, sees the same bytes, and follows the same losses up to the
//! rounding of sums that are taken in another order.
//!
//! What is deliberately absent: threads (one rank computes on the thread that calls [`train()`]), reads of
//! the environment, `unsafe`.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kolo_trainer::{Settings, train};
//!
//! let settings = Settings { steps: 100, text: vec!["src".into()], ..Settings::default() };
//! let summary = train(kolo::Communicator::from_env()?, &settings, &mut ())?;
//! println!("{:?}", summary.losses.last());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod checkpoint;
mod data;
mod error;
mod math;
mod metrics;
mod model;
mod optimizer;
mod parallel;
mod random;
mod sample;
pub mod schedule;
mod settings;
mod train;

pub use error::{Error, Result};
pub use metrics::{Calls, Collective, JsonLines, Report, Start, Step, Traffic};
pub use settings::{Rate, Settings};
pub use train::{Summary, train};
