//! A collective is a plan; a plan is data.
//!
//! Everything here is pure: no clock, no thread, no memory but its own. `step` says what a plan is,
//! `build` helps algorithms to write one, `fuse` rewrites simple steps into fewer, `simulate` proves a
//! plan, `price` predicts its time.

mod build;
mod collective;
mod few;
mod fuse;
mod give;
mod id;
mod message;
mod net;
mod price;
mod refusal;
mod show;
mod simulate;
mod step;

pub use build::{Builder, LaneBuilder};
pub use collective::{Collective, CollectiveKind, Layout};
pub use few::Few;
pub use fuse::fuse;
pub use give::given;
pub use id::plan_id;
pub use price::{Core, Host, Machine, estimate, price};
pub use refusal::Refusal;
pub use simulate::{CREDIT, Proof, prove};
pub use step::{Lane, MOST_BANKS, Memory, Plan, Source, Span, Step, board, from, input, output, scratch};
