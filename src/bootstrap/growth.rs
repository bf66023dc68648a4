//! How newcomers come into a job that runs.
//!
//! The lowest rank opens a gate where `KOLO_RENDEZVOUS` says, once more or somewhere else in its list. All ranks meet there
//! as they did when the job started, in a [star](super::star); newcomers knock until they are let in. They prove the
//! job's secret as everybody does, and learn from the hub which ranks they are and in which generation.
//!
//! | comes                                      | and is                                       |
//! | ------------------------------------------ | -------------------------------------------- |
//! | a rank that calls the same `grow`          | let in                                       |
//! | a newcomer                                 | let in, or told to come later                |
//! | a rank of an earlier generation            | refused                                      |
//! | a rank that should have come to the start  | refused                                      |
//!
//! What the generation's links prove is a secret drawn anew: whoever is of an earlier one cannot even knock at a door.

use super::dial::{ATTEMPT, FIRST_PAUSE, Knocked, LAST_PAUSE, knock, within};
use super::hello::{Hello, Purpose};
use super::secret::{Secret, random};
use super::star::{GRACE, Hub, Party, Spoke};
use super::stream::Listener;
use super::{Bootstrap, bind, listen, meeting_place};
use crate::config::{Config, Place, Rendezvous, Way};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// How a job grows; as [`grow`] takes it.
pub struct Growth<'a> {
    /// This rank among those that take newcomers in.
    pub rank: usize,
    /// How many those are; they keep their numbers.
    pub members: usize,
    /// How many are to come.
    pub newcomers: usize,
    /// The same on all members, and another for each attempt.
    pub number: u64,
    /// How often the job has grown then.
    pub generation: u32,
    /// Whether a member that has not come may still come; why not is the failure of all.
    pub may_come: &'a dyn Fn(usize) -> Result<()>,
    /// Whether this rank goes on waiting; why not is its failure.
    pub goes_on: &'a dyn Fn() -> Result<()>,
}

/// Where the lowest rank waits for newcomers.
pub struct Gate {
    listener: Listener,
    /// Which of the places that the configuration names.
    place: usize,
}

impl Gate {
    /// Opens at the first place where this rank can listen.
    ///
    /// # Errors
    /// `System` says for each place why it cannot.
    pub fn open(config: &Config) -> Result<Self> {
        // Whoever inherited a listener holds on to it.
        let inherited = match &config.way {
            Way::Star(Rendezvous { listener, .. }) => *listener,
            _ => None,
        };
        let open = |named: &Place| {
            let place = meeting_place(named, config.secret.as_ref())?;
            bind(&place).or_else(|error| listen(&place, Some(inherited.ok_or(error)?)))
        };
        let mut reasons = Vec::new();
        for (place, named) in config.rendezvous.iter().enumerate() {
            match open(named) {
                Ok(listener) => return Ok(Self { listener, place }),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(Error::new(Kind::System, reasons.join("; ")))
    }

    /// Which of the places that the configuration names it is.
    pub fn place(&self) -> usize {
        self.place
    }
}

/// Meets the other members, and newcomers, at `gate`, which the lowest rank has opened, or at that place.
///
/// # Errors
/// The same on all members that live: `Deadline` where too few came, `PeerLost` where somebody left meanwhile.
pub fn grow(
    config: &Config,
    growth: &Growth<'_>,
    gate: Result<Gate, usize>,
    deadline: Deadline,
) -> Result<Box<dyn Bootstrap>> {
    let secret = config.secret.clone().unwrap_or_else(Secret::none);
    let (size, job, encrypt) = (growth.members + growth.newcomers, &config.job, config.links.encrypt);
    let party =
        Party { rank: growth.rank, size, job, secret: &secret, encrypt, deadline, growth: Some(growth) };
    match gate {
        Ok(gate) => Ok(Box::new(Hub::open(gate.listener, &party)?)),
        Err(place) => {
            let named = config.rendezvous.get(place);
            let named = named.ok_or_else(|| Error::usage("KOLO_RENDEZVOUS differs from rank 0's"))?;
            let place = meeting_place(named, config.secret.as_ref())?;
            // The hub's word on who is missing comes before this rank's own.
            let patient = Deadline::after(deadline.allowed().map(|allowed| allowed.saturating_add(GRACE)));
            Ok(Box::new(Spoke::open(&place, &Party { deadline: patient, ..party })?))
        }
    }
}

/// Comes as a newcomer: knocks at each place that the configuration names until one lets it in.
///
/// # Errors
/// `Deadline` where none did, `Refused` says why it is not welcome; `PeerLost` or `Deadline` tell that it was let in and
/// others were missing, so that it may come again.
pub(super) fn come(config: &Config, deadline: Deadline) -> Result<Box<dyn Bootstrap>> {
    let given = config.secret.as_ref();
    let places = config.rendezvous.iter().map(|place| meeting_place(place, given));
    let places = places.collect::<Result<Vec<Place>>>()?;
    let secret = config.secret.clone().unwrap_or_else(Secret::none);
    let mut pause = FIRST_PAUSE;
    loop {
        let mut reasons = Vec::new();
        for place in &places {
            let hello = Hello::new(&config.job, (0, 0), 1, Purpose::Join, config.links.encrypt, random()?);
            // One that is stopped where it listens keeps nobody from the others.
            let attempt = Deadline::after(Some(deadline.left().map_or(ATTEMPT, |left| left.min(ATTEMPT))));
            let why = match knock(place, &hello, &secret, &attempt) {
                Ok(Knocked::In(hub)) => return Ok(Box::new(Spoke::seated(hub, deadline, &|| Ok(()))?)),
                Ok(Knocked::Absent(cause)) => cause.to_string(),
                Ok(Knocked::Later(why)) => why,
                // A host whose name nobody knows any more need not be where the others are.
                Err(error) if error.kind() == Kind::System => error.to_string(),
                Err(error) => return Err(error),
            };
            reasons.push(format!("{place}: {why}"));
        }
        if deadline.passed() {
            let text = format!("no job took this newcomer in{} ({})", within(&deadline), reasons.join("; "));
            return Err(Error::new(Kind::Deadline, text));
        }
        std::thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
        pause = LAST_PAUSE.min(pause * 2);
    }
}
