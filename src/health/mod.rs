//! Deadlines, the news of death, and where a rank runs.

mod deadline;
mod home;

pub use deadline::Deadline;
pub use home::Home;
