//! Which algorithm a call walks: the one that was named, or the cheapest by price.

use std::time::Duration;

use super::context::Context;
use super::core::Group;
use crate::algorithm::{self, Algorithm};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::CollectiveKind;

/// How a communicator behaves; a split or duplicate inherits it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a call waits for other ranks; `None` for ever.
    pub(super) deadline: Option<Duration>,
    /// Whether only plans that combine in rank order are walked.
    pub(super) deterministic: bool,
    /// The algorithm that was named, by place in the list of all, for each collective.
    forced: [Option<u8>; CollectiveKind::ALL.len()],
}

impl Default for Settings {
    fn default() -> Self {
        let forced = [None; CollectiveKind::ALL.len()];
        Self { deadline: Some(Duration::from_secs(600)), deterministic: false, forced }
    }
}

impl Settings {
    /// What a configuration says.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let mut settings =
            Self { deadline: config.deadline, deterministic: config.deterministic, ..Self::default() };
        for (kind, name) in &config.algorithms {
            match kind {
                Some(kind) => settings.force(*kind, Some(name))?,
                None => settings.force_where_able(name)?,
            }
        }
        Ok(settings)
    }

    /// Names an algorithm for every collective that it does.
    fn force_where_able(&mut self, name: &str) -> Result<()> {
        let wanted = algorithm::find(name)?;
        let able = CollectiveKind::ALL.into_iter().filter(|kind| wanted.does(*kind));
        able.for_each(|kind| self.forced[kind as usize] = Some(place_of(wanted)));
        Ok(())
    }

    /// Names the algorithm of a collective, or leaves it to the price again.
    pub(super) fn force(&mut self, kind: CollectiveKind, name: Option<&str>) -> Result<()> {
        let place = |name: &str| -> Result<u8> {
            let wanted = algorithm::find(name)?;
            if !wanted.does(kind) {
                let able = algorithm::ALL.iter().filter(|algorithm| algorithm.does(kind));
                let able: Vec<_> = able.map(|algorithm| algorithm.name()).collect();
                let able = able.join(", ");
                return Err(Error::usage(format!("{name} does no {kind}; what does it: {able}")));
            }
            Ok(place_of(wanted))
        };
        self.forced[kind as usize] = name.map(place).transpose()?;
        Ok(())
    }
}

fn place_of(wanted: &dyn Algorithm) -> u8 {
    let place = algorithm::ALL.iter().position(|algorithm| algorithm.name() == wanted.name());
    place.expect("every algorithm is in the list") as u8
}

/// What a call asks of its plan.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    pub(super) bytes: usize,
    /// Whether contributions must be combined in rank order.
    pub(super) rank_order: bool,
    /// Whether each rank knows only its own edges.
    pub(super) edges: bool,
}

/// What a call walks, and why; see [`Communicator::explain`](super::Communicator::explain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// The fingerprint of this rank's fused plan; [`plan_id`](crate::plan::plan_id) makes the plan's id of
    /// all ranks' fingerprints.
    pub fingerprint: u64,
    /// The predicted time, in nanoseconds.
    pub predicted_ns: u64,
}

/// The choices of one communicator, made once per collective.
#[derive(Default)]
pub(super) struct Choice {}

impl Choice {
    pub(super) fn pick(
        &self,
        kind: CollectiveKind,
        needs: Needs,
        settings: &Settings,
        _group: &Group,
        _context: &Context,
    ) -> Result<u8> {
        if let Some(forced) = settings.forced[kind as usize] {
            return Ok(forced);
        }
        let able = algorithm::ALL.iter().find(|algorithm| algorithm.does(kind));
        let _ = (needs.bytes, needs.rank_order, needs.edges);
        able.map(|algorithm| place_of(*algorithm)).ok_or_else(|| Error::usage(format!("nothing does {kind}")))
    }
}
