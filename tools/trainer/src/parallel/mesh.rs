//! The ranks as a grid. Tensor parallelism, which talks most, takes neighbours; then data parallelism; a
//! pipeline's stages lie farthest apart:
//!
//! ```text
//! rank = (stage * dp + replica) * tp + slice       dp 2, tp 2, pp 2:   stage 0: 0 1 | 2 3
//!                                                                      stage 1: 4 5 | 6 7
//! group    ranks that differ in       carries
//! tensor   slice                      activations, inside every layer
//! data     replica                    gradients, once a step
//! pipeline stage                      activations and gradients between neighbours
//! tied     stage, first and last      the gradient of the token table that both hold
//! model    slice and stage            the gradients' norm
//! ```

use kolo::Communicator;

use super::group::Group;
use crate::error::{Error, Result};
use crate::metrics::Traffic;
use crate::model::Share;

/// Degrees of parallelism; their product is the number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Degrees {
    /// Replicas that see different data.
    pub(crate) dp: usize,
    /// Slices of every layer.
    pub(crate) tp: usize,
    /// Stages of layers.
    pub(crate) pp: usize,
}

/// A rank's place in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) replica: usize,
    pub(crate) slice: usize,
    pub(crate) stage: usize,
}

impl Degrees {
    /// All ranks.
    pub(crate) fn ranks(&self) -> usize {
        self.dp * self.tp * self.pp
    }

    /// Where `rank` stands.
    pub(crate) fn place(&self, rank: usize) -> Place {
        let (slice, rest) = (rank % self.tp, rank / self.tp);
        Place { replica: rest % self.dp, slice, stage: rest / self.dp }
    }

    /// Which part of the network the rank at `place` holds.
    pub(crate) fn share(&self, place: &Place) -> Share {
        Share { tensor: (place.slice, self.tp), stage: (place.stage, self.pp) }
    }
}

/// This rank's communicators along the axes of the grid.
pub(crate) struct Mesh {
    pub(crate) degrees: Degrees,
    pub(crate) place: Place,
    pub(crate) world: Group,
    pub(crate) tensor: Group,
    pub(crate) data: Group,
    pub(crate) pipeline: Group,
    pub(crate) tied: Group,
    pub(crate) model: Group,
}

impl Mesh {
    /// Splits the world along every axis; called by all its ranks at once.
    pub(crate) fn new(mut world: Communicator, degrees: Degrees) -> Result<Self> {
        let place = degrees.place(world.rank());
        let Degrees { dp, tp, pp } = degrees;
        let Place { replica, slice, stage } = place;
        let is_end = pp > 1 && (stage == 0 || stage + 1 == pp);
        let mut split = |color: Option<usize>, key: usize| -> Result<Group> {
            Ok(Group::new(world.split(color.map(color_of).transpose()?, key)?))
        };
        Ok(Self {
            degrees,
            place,
            tensor: split(Some(stage * dp + replica), slice)?,
            data: split(Some(stage * tp + slice), replica)?,
            pipeline: split(Some(replica * tp + slice), stage)?,
            tied: split(is_end.then_some(replica * tp + slice), stage)?,
            model: split(Some(replica), stage * tp + slice)?,
            world: Group::new(Some(world)),
        })
    }

    /// What passed through all groups since the last call of this function.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        let Self { world, tensor, data, pipeline, tied, model, .. } = self;
        [world, tensor, data, pipeline, tied, model].into_iter().map(Group::take_traffic).sum()
    }
}

fn color_of(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::Settings(format!("a mesh with {index} groups is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_cover_the_grid_once() {
        let degrees = Degrees { dp: 2, tp: 3, pp: 4 };
        let mut seen: Vec<_> = (0..24).map(|rank| degrees.place(rank)).collect();
        assert_eq!(seen[0], Place { replica: 0, slice: 0, stage: 0 });
        assert_eq!(seen[1].slice, 1);
        assert_eq!(seen[3].replica, 1);
        assert_eq!(seen[6].stage, 1);
        seen.sort_by_key(|p| (p.replica, p.slice, p.stage));
        seen.dedup();
        assert_eq!(seen.len(), degrees.ranks());
    }
}
