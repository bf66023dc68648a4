//! Which algorithm a call walks: the one that was named, or the cheapest by price.

use std::collections::HashMap;
use std::time::Duration;

use super::context::Costs;
use crate::algorithm::choose::{Chooser, Needs, sample};
use crate::algorithm::{self, Algorithm};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::{CollectiveKind, Machine};

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

pub(super) fn place_of(wanted: &dyn Algorithm) -> u8 {
    let place = algorithm::ALL.iter().position(|algorithm| algorithm.name() == wanted.name());
    place.expect("every algorithm is in the list") as u8
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

/// The choices of one communicator, for the sizes of which there were calls.
#[derive(Default)]
pub(super) struct Choice {
    /// By collective, what it needs, and the size that was priced.
    made: HashMap<(CollectiveKind, Needs, u64), u8>,
}

impl Choice {
    /// The algorithm for a call of `bytes` bytes in all blocks together, by place in the list of all.
    pub(super) fn pick(
        &mut self,
        kind: CollectiveKind,
        bytes: usize,
        needs: Needs,
        settings: &Settings,
        machine: impl FnOnce() -> Machine<Costs>,
    ) -> Result<u8> {
        let needs =
            Needs { rank_order: kind.reduces() && (needs.rank_order || settings.deterministic), ..needs };
        if let Some(forced) = settings.forced[kind as usize] {
            return match needs.met(algorithm::ALL[usize::from(forced)], kind) {
                true => Ok(forced),
                false => Err(unfit(algorithm::ALL[usize::from(forced)], kind, needs)),
            };
        }
        let sample = sample(kind, bytes as u64);
        let choose = || Chooser::new(kind.at(0), &machine(), needs).row(sample).algorithm as u8;
        Ok(*self.made.entry((kind, needs, sample)).or_insert_with(choose))
    }
}

#[cold]
fn unfit(named: &dyn Algorithm, kind: CollectiveKind, needs: Needs) -> Error {
    let able = algorithm::ALL.iter().filter(|algorithm| needs.met(**algorithm, kind));
    let able: Vec<_> = able.map(|algorithm| algorithm.name()).collect();
    let why = match needs {
        Needs { no_board: true, .. } if named.uses_board() => {
            "leaves blocks in memory that all ranks share, which not all of these can"
        }
        Needs { rank_order: true, .. } => {
            "combines in another order than the ranks', which deterministic mode and operators that do not commute ask for"
        }
        _ => "needs to know all ranks' counts, which a v-variant of this collective does not tell",
    };
    Error::usage(format!("{} {why}; for {kind} there is {}", named.name(), able.join(", ")))
}
