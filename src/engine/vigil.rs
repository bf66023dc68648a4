//! What a call does that waits for long: it says for whom, and asks those whether they make the same call.
//!
//! | after nothing moved for   | it                                                                            |
//! | ------------------------- | ----------------------------------------------------------------------------- |
//! | 200 ms                    | tells: whoever asks at this rank's door learns what it waits for              |
//! | 0.2, 0.4, 0.8 s and so on | asks those it waits for: are they in another call of the same number?         |
//! |                           | asks those that left: have they seen two calls that were not alike?           |
//! | the deadline              | follows who waits for whom, to whose turn it is, or around a circle           |
//!
//! Two ranks that wait for each other in different calls would else never know: neither sends what could be compared.
//!
//! A rank that saw two calls clash leaves. Who loses it asks it why, and fails with the same two calls: so all ranks learn of
//! them, whoever of them received what did not fit. A rank that gets a message whose call is like its own, and whose digest
//! is not, asks the sender for its last calls: an earlier one was not alike.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::signature::Signature;
use crate::bootstrap::{Door, Roster};
use crate::error::{Error, Kind, Result};
use crate::health::{Awaited, Clash, Deadline, Report, Standing, Standings, Waiting};

/// How long one rank may take to answer, and all together when a call gives up.
const ANSWER: Duration = Duration::from_millis(250);
const ANSWERS: Duration = Duration::from_secs(1);
/// How many ranks an error follows.
const FOLLOWED: usize = 16;

/// One communicator's.
pub struct Vigil {
    /// The communicator.
    id: u64,
    /// Each of its ranks, as the job numbers it.
    members: Arc<[u32]>,
    /// This rank among them.
    rank: usize,
    standing: Arc<Standing>,
    standings: Arc<Standings>,
    door: Arc<Door>,
    roster: Arc<Roster>,
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.door.leave(self.id);
        self.standings.leave(&self.standing);
    }
}

/// What a call waits for.
#[derive(Clone, Copy)]
pub(super) struct Plight<'a> {
    pub(super) signature: &'a Signature,
    /// Whether each rank knows only its own edges, and so its own count.
    pub(super) edges: bool,
    /// Ranks of the communicator, and whether for a message of theirs; else for room.
    pub(super) awaited: &'a [(u32, bool)],
    pub(super) waited: Duration,
}

/// Why a peer has left.
#[derive(Default)]
pub(super) struct Loss {
    /// In words, where there is more to say.
    pub(super) why: String,
    /// The rank of the communicator that is to blame, where that is another one.
    pub(super) culprit: Option<usize>,
    /// The calls that were not alike, where that was the reason.
    pub(super) clash: Option<Clash>,
}

impl Vigil {
    /// Of rank `rank` of a communicator.
    pub fn new(
        id: u64,
        (members, rank): (Arc<[u32]>, usize),
        standings: Arc<Standings>,
        door: Arc<Door>,
        roster: Arc<Roster>,
    ) -> Self {
        let standing = standings.enter(id, Arc::clone(&members));
        door.enter(id);
        Self { id, members, rank, standing, standings, door, roster }
    }

    /// How far this rank has come.
    #[inline(always)]
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Says what the call waits for.
    pub(super) fn tell(&self, plight: Plight<'_>) {
        let Plight { signature, awaited, waited, .. } = plight;
        let on =
            awaited.iter().map(|&(rank, message)| Awaited { rank: self.members[rank as usize], message });
        self.standing.tell(Waiting { call: signature.tag().body, waited, on: on.collect() });
    }

    /// Fails if a rank that the call waits for waits in another call of the same number.
    pub(super) fn ask(&self, plight: Plight<'_>) -> Result<()> {
        let Plight { signature, edges, awaited, .. } = plight;
        for &(rank, _) in awaited.iter().take(FOLLOWED) {
            let Ok(reports) = self.reports(self.members[rank as usize], ANSWER) else { continue };
            let call = reports.iter().filter(|report| report.communicator == self.id);
            let mut call = call.filter_map(|report| Some(report.waiting.as_ref()?.call));
            let differs =
                |theirs: &[u64; 4]| theirs[1] == signature.sequence && signature.contradicts(*theirs, edges);
            if let Some(theirs) = call.find(differs) {
                return Err(signature.mismatch(theirs, rank as usize));
            }
        }
        Ok(())
    }

    /// Fails if one of the ranks that have left saw that calls are not alike. This one may wait for ranks that wait
    /// themselves, and have nothing to say of it: the odd one may have sent what it had to send elsewhere, and gone on.
    pub(super) fn ask_who_left(&self, signature: &Signature, left: Vec<usize>) -> Result<()> {
        let mut search = self.search(ANSWER);
        let clash = |&peer: &usize| Some((peer, search.clash(self.members[peer])?));
        match left.iter().find_map(clash) {
            Some((peer, clash)) => Err(self.learn(clash, signature, peer)),
            None => Ok(()),
        }
    }

    fn search(&self, allowed: Duration) -> Search<'_> {
        Search { vigil: self, known: HashMap::new(), deadline: Deadline::after(Some(allowed)) }
    }

    fn reports(&self, rank: u32, allowed: Duration) -> Result<Vec<Report>> {
        if rank == self.members[self.rank] {
            return Ok(self.standings.reports());
        }
        self.door.reports(rank as usize, &self.roster.nodes[rank as usize], allowed)
    }

    /// Why those that the call waits for do not come, and which rank of the communicator is to blame, if one is.
    pub(super) fn explain(&self, plight: Plight<'_>) -> (String, Option<usize>) {
        let mut search = self.search(ANSWERS);
        let call = plight.signature.tag().body;
        let (mut text, mut culprit) = (String::new(), None);
        for &(rank, _) in plight.awaited {
            let found = search.follow(self.members[rank as usize], call, &mut text);
            culprit = culprit.or(found);
        }
        (text, culprit.and_then(|rank| self.place(rank)))
    }

    /// The communicator fails in a call because of that rank of it.
    pub fn fail(&self, peer: Option<usize>) {
        // Who finds that this rank has left may ask at once why.
        self.standing.fail(peer.and_then(|peer| self.members.get(peer).copied()));
        self.door.leave(self.id);
    }

    /// Notes the calls that an error is about, if it is: those that are told that this rank has left ask for them.
    pub(super) fn differ(&self, error: &Error, peer: usize) {
        let (Some(calls), Some(&other)) = (error.calls(), self.members.get(peer)) else { return };
        self.standing.differ(Clash { ranks: [self.members[self.rank], other], calls });
    }

    /// The same error as those have who saw the clash because of which a peer has left.
    pub(super) fn learn(&self, clash: Clash, signature: &Signature, peer: usize) -> Error {
        self.standing.differ(clash);
        let Clash { ranks, calls } = clash;
        let names = ranks.map(|rank| self.name(rank));
        let error = Error::new(Kind::Mismatch, Signature::contrast([&names[0], &names[1]], calls));
        // Who calls as this rank does, or did, is not the odd one.
        let alike = calls[0] == signature.tag().body || self.standing.calls().contains(&calls[0]);
        let odd = ranks[usize::from(alike)];
        error.with(peer).blaming(self.place(odd).unwrap_or(peer))
    }

    /// The first of the last calls of this rank and of a peer that were not alike.
    pub(super) fn look_back(&self, peer: usize) -> Option<Error> {
        let rank = self.members[peer] as usize;
        let theirs = self.door.calls(rank, &self.roster.nodes[rank], self.id, ANSWERS).ok()?;
        let mut mine = self.standing.calls().into_iter();
        let clash = mine.find_map(|mine| {
            let other = theirs.iter().find(|theirs| theirs[1] == mine[1] && **theirs != mine)?;
            Some([mine, *other])
        });
        clash.map(|calls| Signature::clash(calls, peer))
    }

    /// Why a peer has left the communicator.
    pub(super) fn explain_loss(&self, signature: &Signature, peer: usize) -> Loss {
        let mut search = self.search(ANSWER);
        let mut text = String::new();
        let Some(&peer) = self.members.get(peer) else { return Loss::default() };
        let culprit = search.follow(peer, signature.tag().body, &mut text);
        // One that does not answer any more has nothing to add, but its host may.
        if search.known.get(&peer).is_none_or(Result::is_err) {
            let end = self.end(peer).map(|end| format!("; {} {end}", self.name(peer)));
            return Loss { why: end.unwrap_or_default(), ..Loss::default() };
        }
        let clash = search.clash(peer);
        let culprit = culprit.filter(|rank| *rank != peer).and_then(|rank| self.place(rank));
        Loss { why: text, culprit, clash }
    }

    /// Writes down what this rank and the one that the error blames have done, if it is to be written anywhere, and says
    /// where.
    pub(super) fn record(&self, error: Error) -> Error {
        self.standing.explain(&error);
        let blamed = error.peer().and_then(|peer| self.members.get(peer)).map(|&rank| rank as usize);
        match self.standings.write() {
            None => error,
            Some(Ok(path)) => {
                // It may have no error of its own to write it for. Who has ended cannot any more.
                if let Some(rank) = blamed {
                    let _ = self.door.record(rank, &self.roster.nodes[rank], ANSWER);
                }
                error.because(&format!("; recorded in {}", path.display()))
            }
            Some(Err(cause)) => error.because(&format!("; not recorded, KOLO_RECORD: {cause}")),
        }
    }

    /// A rank of the job among those of the communicator.
    fn place(&self, rank: u32) -> Option<usize> {
        self.members.iter().position(|member| *member == rank)
    }

    /// A rank of the job, as this communicator's users know it.
    fn name(&self, rank: u32) -> String {
        match self.place(rank) {
            Some(rank) => format!("rank {rank}"),
            None => format!("the job's rank {rank}"),
        }
    }

    /// How a rank's process ended, where its host tells.
    fn end(&self, rank: u32) -> Option<String> {
        let nodes = &self.roster.nodes;
        nodes[rank as usize].end(&nodes[self.members[self.rank] as usize])
    }

    /// Why a rank does not answer.
    fn silence(&self, rank: u32, error: &Error) -> String {
        let node = &self.roster.nodes[rank as usize];
        match (node.state(), error.kind()) {
            (Some('T' | 't'), _) => {
                format!("is stopped: continue its process (kill -CONT {})", node.pid)
            }
            (Some('Z'), _) | (_, Kind::PeerLost) => self.end(rank).unwrap_or_else(|| "has ended".into()),
            (Some(state), _) => format!("does not answer: its process {} is in state {state}", node.pid),
            (None, _) => "does not answer: its process is stopped, swapped out, or cut off".into(),
        }
    }
}

/// One error's questions.
struct Search<'a> {
    vigil: &'a Vigil,
    /// What the text says of already, and what those ranks said.
    known: HashMap<u32, Result<Vec<Report>>>,
    deadline: Deadline,
}

/// Where following on leads to.
enum Next {
    /// That rank in that call.
    Rank(u32, [u64; 4]),
    /// To nobody: it is this one's turn.
    Nobody,
    /// It is not known.
    Unknown,
}

impl Search<'_> {
    /// What a rank says, asked once.
    fn ask(&mut self, rank: u32) -> &Result<Vec<Report>> {
        let allowed = self.deadline.left().map_or(ANSWER, |left| left.min(ANSWER));
        self.known.entry(rank).or_insert_with(|| self.vigil.reports(rank, allowed))
    }

    /// The calls that were not alike, because of which a rank has left: one that lost another may not know of them yet.
    fn clash(&mut self, mut rank: u32) -> Option<Clash> {
        let communicator = self.vigil.id;
        for _ in 0..FOLLOWED {
            let reports = self.ask(rank).as_ref().ok()?;
            let here = reports.iter().rev().find(|report| report.communicator == communicator)?;
            if here.clash.is_some() {
                return here.clash;
            }
            rank = here.failed??;
        }
        None
    }

    /// Appends who waits for whom, from a rank that is waited for in a call; says whose turn it is.
    fn follow(&mut self, mut rank: u32, mut call: [u64; 4], text: &mut String) -> Option<u32> {
        let vigil = self.vigil;
        let mut trail = vec![(vigil.members[vigil.rank], vigil.id)];
        loop {
            if trail.contains(&(rank, call[0])) {
                text.push_str(", which closes a circle");
                return None;
            }
            let told = self.known.contains_key(&rank);
            if told && trail.len() == 1 || self.known.len() == FOLLOWED || self.deadline.passed() {
                return None;
            }
            trail.push((rank, call[0]));
            let (phrase, next) = match self.ask(rank) {
                Ok(reports) => stands(vigil, call, reports),
                Err(error) => (vigil.silence(rank, error), Next::Nobody),
            };
            let _ = write!(text, "; {} {phrase}", vigil.name(rank));
            match next {
                Next::Rank(other, in_call) => (rank, call) = (other, in_call),
                Next::Nobody => return Some(rank),
                Next::Unknown => return None,
            }
        }
    }
}

/// What a rank does that others wait for in a call.
fn stands(vigil: &Vigil, call: [u64; 4], reports: &[Report]) -> (String, Next) {
    let [communicator, sequence, ..] = call;
    let on = |report: &Report| {
        let waiting = report.waiting.as_ref()?;
        Some((waiting.on.first()?.rank, waiting.call, waiting.waited))
    };
    let here = reports.iter().rev().find(|report| report.communicator == communicator);
    let (begun, failed) = here.map_or((0, None), |report| (report.begun, report.failed));
    if let Some(Some(other)) = failed.filter(|_| here.is_none_or(|report| report.waiting.is_none())) {
        return (format!("has failed because of {}", vigil.name(other)), Next::Rank(other, call));
    }
    if let Some((other, theirs, waited)) = here.and_then(on).filter(|(_, theirs, _)| theirs[1] == sequence) {
        let waits = if failed.is_some() { "gave up waiting" } else { "waits" };
        let phrase = format!("{waits} there for {}, for {:.1} s", vigil.name(other), waited.as_secs_f64());
        return (phrase, Next::Rank(other, theirs));
    }
    if failed.is_some() {
        let when = if begun == 0 { "before its first call".into() } else { format!("in its call #{begun}") };
        return (format!("has failed {when}"), Next::Nobody);
    }
    if sequence != 0 && begun >= sequence {
        let done = here.is_some_and(|report| report.done >= sequence);
        return (if done { "is done with it" } else { "is in it and moves" }.into(), Next::Unknown);
    }
    // In an earlier call, or on another communicator.
    if let Some((other, theirs, _)) = here.into_iter().chain(reports.iter().rev()).find_map(on) {
        let (name, place) = (vigil.name(other), Signature::place(theirs));
        return (
            format!("has not made this call, but waits in {place} for {name}"),
            Next::Rank(other, theirs),
        );
    }
    let last = match here {
        Some(report) if report.done < report.begun => format!("it is in call #{begun}"),
        Some(_) if begun > 0 => format!("its last one was #{begun}"),
        _ => "it has made none on this communicator".into(),
    };
    (format!("has not made this call: {last}"), Next::Nobody)
}
