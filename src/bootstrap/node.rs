//! What a rank tells all others about itself.

/// A rank's card: where it runs and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {}
