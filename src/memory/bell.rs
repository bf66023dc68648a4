//! How a rank sleeps without missing a message.

/// What a rank sleeps on.
#[derive(Debug)]
pub struct Bell {}
