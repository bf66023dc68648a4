//! Where peers knock: listeners, and the proof of the job's secret on every connection.

/// This rank's listeners.
#[derive(Debug)]
pub struct Door {}
