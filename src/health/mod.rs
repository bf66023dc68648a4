//! Deadlines, the news of death, where a rank runs, where it stands, and what it did last.

mod deadline;
mod home;
#[cfg(any(test, fuzzing))]
pub(crate) mod probes;
mod record;
mod recorder;
mod ring;
mod standing;

pub use crate::sys::cgroup::{Cgroup, Killed};
pub use deadline::Deadline;
pub use home::Home;
pub(crate) use record::plain_name;
pub use record::{Called, Failure, Moved, Past, Record};
pub use recorder::{Move, Peers, WORTH_RECORDING};
pub use standing::{Awaited, Blame, Clash, Report, Scribe, Stage, Standing, Standings, Waiting};
