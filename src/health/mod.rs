//! Deadlines, the news of death, where a rank runs, and where it stands.

mod deadline;
mod home;
mod standing;

pub use deadline::Deadline;
pub use home::Home;
pub use standing::{Awaited, Blame, Report, Stage, Standing, Standings, Waiting};
