//! Deadlines, and the news of death.

mod deadline;

pub use deadline::Deadline;
