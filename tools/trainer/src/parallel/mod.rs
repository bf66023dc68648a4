//! Ranks: the mesh they form, the communicators along its axes, and the schedule that a pipeline walks.

pub(crate) mod group;
pub(crate) mod mesh;
pub(crate) mod pipeline;
