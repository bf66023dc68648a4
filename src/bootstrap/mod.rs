//! How ranks find each other, and prove who they are.

mod door;
mod node;

pub use door::Door;
pub use node::Node;

use crate::error::Result;

/// Lets the ranks of a job exchange a few bytes before any link exists.
pub trait Bootstrap: Send {
    /// This rank.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Every rank's bytes, in rank order. All ranks call it equally often.
    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;
}
