//! kolo: collective communication for ranks on any machine.

pub mod algorithm;
pub mod bootstrap;
pub mod dtype;
pub mod error;
pub mod health;
pub mod kernel;
pub mod memory;
pub mod op;
pub mod plan;
mod sys;
pub mod topology;
pub mod transport;

pub use error::{Error, Kind, Result};
