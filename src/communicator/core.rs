//! What runs the calls of one communicator, wherever it is: with its owner, or with the progress thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ask::{Ask, Errand, Own};
use super::choice::{self, Choice, Explanation, Settings};
use super::context::Context;
use super::trips::{Trip, Trips};
use crate::CHECKED;
use crate::algorithm;
use crate::algorithm::choose::Needs;
use crate::engine::{
    Board, Course, Engine, Request, Ride, Route, Routine, Shape, Signature, Tenancy, Wait, Walk, aborted, mix,
};
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Home, Peers, Standing};
use crate::kernel::Reducer;
use crate::memory::{Bell, Scratch, View};
use crate::plan::{self, Collective, CollectiveKind, Plan};
use crate::topology::Topology;

/// The ranks of a communicator.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The same number on all its ranks, another for each communicator of the job.
    pub(super) id: u64,
    /// That of the one that was split to make it; its own where none was.
    pub(super) origin: u64,
    /// This rank.
    pub(super) rank: usize,
    /// Each rank, as the job numbers it.
    pub(super) members: Vec<u32>,
    /// Who stands where.
    pub(super) topology: Topology,
}

impl Group {
    /// All ranks of a job, under the number that their communicator has; this one is `rank`.
    pub(super) fn all(id: u64, rank: usize, topology: &Topology) -> Self {
        let members = (0..topology.size() as u32).collect();
        Self { id, origin: id, rank, members, topology: topology.clone() }
    }
}

/// What a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    routine: Routine,
    root: u32,
    algorithm: u8,
    peers: (Option<u32>, Option<u32>),
    rails: u8,
}

impl Errand {
    fn destination(&self, algorithm: u8, rails: u8) -> Destination {
        let Self { routine, root, peers, .. } = *self;
        Destination { routine, root, algorithm, peers, rails }
    }

    /// Of the communicator's `sequence`-th call, after those that the digest `past` stands for.
    fn signature(&self, communicator: u64, (sequence, past): (u64, u64), algorithm: u8) -> Signature {
        let Self { routine, dtype, op, root, count, counts, .. } = *self;
        let (count, [sequence, past]) = (count as u64, [sequence, past].map(|word| self.number(word)));
        Signature { communicator, sequence, count, routine, dtype, op, algorithm, root, counts, past }
    }

    /// What a call says of its place among the communicator's: messages between two ranks have none.
    fn number(&self, word: u64) -> u64 {
        if self.is_numbered() { word } else { 0 }
    }

    /// Whether it is one of the communicator's calls: messages between two ranks are not.
    fn is_numbered(&self) -> bool {
        self.routine != Routine::PointToPoint
    }
}

/// The algorithm of the barrier by which ranks agree on a call before they open links for it: few links
/// for each rank, and every rank hears of every other one in few hops.
const AGREEMENT: &str = "doubling";

/// From so many bytes of all blocks together on calls take all rails: less is soon sent over one.
const LONG: usize = 64 << 10;

/// See the module.
pub(crate) struct Core {
    context: Arc<Context>,
    group: Group,
    engine: Engine,
    choice: Choice,
    routes: Vec<(Destination, Route)>,
    sequence: u64,
    /// The digest of the last call.
    past: u64,
    failed: Option<Error>,
    /// The input times its factor, for pre-multiplied sums.
    prescaled: Scratch,
    settings: Settings,
    trips: Trips,
}

impl Core {
    pub(super) fn new(
        context: Arc<Context>,
        group: Group,
        settings: Settings,
        abort: Arc<AtomicBool>,
    ) -> Result<Self> {
        let (rank, topology) = (group.rank, &group.topology);
        let near = |other: &usize| *other != rank && topology.neighbours(rank, *other);
        let neighbours: Vec<u32> = (0..topology.size()).filter(near).map(|other| other as u32).collect();
        let home = context.home().filter(|_| !neighbours.is_empty()).map(Home::new);
        let tenancy =
            Tenancy { patience: context.patience(), neighbours, home, overflow: context.overflow() };
        let vigil = context.vigil(&group);
        // Peers that have theirs must not wait for this rank.
        let bell = Bell::new().inspect_err(|_| vigil.fail(None))?;
        let engine = Engine::new(bell, context.slot(), tenancy, abort, vigil);
        let choice = Choice::default();
        Ok(Self {
            context,
            group,
            engine,
            choice,
            routes: Vec::new(),
            sequence: 0,
            past: 0,
            failed: None,
            prescaled: Scratch::default(),
            settings,
            trips: Trips::default(),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings, to be changed: the next call chooses anew.
    pub(super) fn settings_mut(&mut self) -> &mut Settings {
        self.trips = Trips::default();
        &mut self.settings
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        self.engine.bell()
    }

    /// Whether a call is like the last one, but for its memory.
    #[inline(always)]
    pub(super) fn repeats(&self, ask: &Ask) -> bool {
        self.trips.current().is_some_and(|trip| trip.errand == ask.errand)
    }

    /// Runs a call to its end, on the calling thread.
    #[inline(never)]
    pub(super) fn run(&mut self, ask: &Ask, input: View<'_>, output: View<'_>) -> Result<()> {
        self.begin(ask, input)?;
        self.carry_out(ask, (input, output))
    }

    /// The same, of a call that [`repeats`](Self::repeats).
    #[inline(never)]
    pub(super) fn run_again(&mut self, ask: &Ask, input: View<'_>, output: View<'_>) -> Result<()> {
        self.begin_again(ask, input)?;
        self.carry_out(ask, (input, output))
    }

    /// Walks the call that has begun; a failure is the communicator's.
    #[inline(always)]
    fn carry_out(&mut self, ask: &Ask, views: (View<'_>, View<'_>)) -> Result<()> {
        let mut walking = Walking { core: self, panics: true };
        let outcome = walking.core.walk(ask, views);
        walking.panics = false;
        match outcome {
            Ok(()) => {
                walking.core.end();
                Ok(())
            }
            Err(error) => Err(walking.core.fail(error)),
        }
    }

    /// The call that has begun has ended well.
    #[inline(always)]
    pub(super) fn end(&self) {
        self.engine.standing().end(self.sequence);
    }

    #[inline(always)]
    fn walk(&mut self, ask: &Ask, views: (View<'_>, View<'_>)) -> Result<()> {
        let (engine, course, request) = self.call(ask, views);
        match engine.sprint(course, &request)? {
            None => Ok(()),
            Some(walk) => self.go_on(walk, ask, views),
        }
    }

    // Asks for the call anew, so that sprints keep it in registers.
    #[inline(never)]
    fn go_on(&mut self, walk: Walk, ask: &Ask, views: (View<'_>, View<'_>)) -> Result<()> {
        let allowed = self.settings.deadline;
        let (engine, course, request) = self.call(ask, views);
        engine.go_on(walk, course, &request, allowed)?;
        self.stamp();
        Ok(())
    }

    /// The call that has begun is at its end, and was not quick.
    pub(super) fn stamp(&self) {
        self.engine.standing().stamp();
    }

    /// Finds the route of a call, opening its links where they are not open yet.
    pub(super) fn begin(&mut self, ask: &Ask, input: View<'_>) -> Result<()> {
        if self.repeats(ask) || self.trips.resume(&ask.errand) {
            return self.begin_again(ask, input);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.set_course(ask)?;
        self.depart(ask, input)
    }

    #[inline(always)]
    fn begin_again(&mut self, ask: &Ask, input: View<'_>) -> Result<()> {
        if let Some(error) = self.failed.as_ref().filter(|_| CHECKED) {
            return Err(error.clone());
        }
        let trip = self.trips.current_mut().expect("there was a call");
        // A message between two ranks is like the last one in all that travels with it.
        if trip.errand.is_numbered() {
            self.sequence += 1;
            (trip.signature.sequence, trip.signature.past) = (self.sequence, self.past);
            trip.stamp.number(self.sequence, self.past);
            self.past = trip.stamp.tag().digest;
        }
        self.engine.standing().begin(self.sequence, &trip.stamp.tag().body, trip.peers);
        self.depart(ask, input)
    }

    /// The call that has a course may go.
    #[inline(always)]
    fn depart(&mut self, ask: &Ask, input: View<'_>) -> Result<()> {
        // Only now, with its links open, can the peers learn of it.
        if CHECKED && self.abort().load(Ordering::Relaxed) {
            return Err(self.fail(aborted()));
        }
        if let Own::Factor(factor) = ask.own {
            self.prescale(input, factor);
        }
        Ok(())
    }

    #[inline(never)]
    fn prescale(&mut self, input: View<'_>, factor: [u8; 8]) {
        let Some(reducer) = self.trips.current_mut().and_then(|trip| trip.reducer.as_mut()) else { return };
        reducer.set_factor(factor);
        self.prescaled.ensure(input.len());
        reducer.prescale(self.prescaled.view().part(0..input.len()), input);
    }

    /// Finds the route of a call that is not like the last one.
    fn set_course(&mut self, ask: &Ask) -> Result<()> {
        let errand = ask.errand;
        let sequence = self.sequence + u64::from(errand.is_numbered());
        let (dtype, ranks) = (errand.dtype, self.group.members.len());
        let reducer = match (errand.op, &ask.own) {
            (Some(op), Own::Nothing) => Some(Reducer::of(dtype, op, ranks)?),
            (_, Own::Factor(factor)) => Some(Reducer::pre_multiplied(dtype, *factor, ranks)?),
            _ => None,
        };
        let algorithm = self.algorithm(&errand)?;
        let signature = errand.signature(self.group.id, (sequence, self.past), algorithm);
        let wanted = errand.destination(algorithm, self.rails(&errand));
        let (stamp, peers) = (signature.stamp(), Peers::new(errand.peers.1, errand.peers.0));
        self.engine.standing().begin(sequence, &stamp.tag().body, peers);
        let route = match self.find(wanted) {
            Some(route) => route,
            None => {
                let opened = self.agree_and_open(ask, wanted, &signature);
                opened.map_err(|error| self.fail_as(error, &signature))?
            }
        };
        if errand.is_numbered() {
            (self.sequence, self.past) = (sequence, stamp.tag().digest);
        }
        let trip = Trip { errand, route, signature, stamp, peers, reducer, chart: None };
        self.trips.begin(trip);
        let (engine, Course { route, .. }, request) = self.call(ask, (View::empty(), View::empty()));
        let chart = engine.chart(route, &request);
        self.trips.current_mut().expect("it has begun").chart = chart;
        Ok(())
    }

    /// What walks the call that has begun, where, and as what.
    // Inlined: a structure that is moved right after it was written stalls whoever reads it.
    #[inline(always)]
    fn call<'a>(
        &'a mut self,
        ask: &'a Ask,
        (input, output): (View<'a>, View<'a>),
    ) -> (&'a mut Engine, Course<'a>, Request<'a>) {
        let Trip { route, signature, stamp, reducer, chart, .. } =
            self.trips.current().expect("a call has begun");
        // What the plan reads as the input: the caller's, or what was made of it.
        let (input, reducer) = match &ask.own {
            Own::Nothing => (input, reducer.as_ref()),
            Own::Factor(_) => (self.prescaled.view().part(0..input.len()), reducer.as_ref()),
            Own::Operator(own) => (input, Some(&**own)),
        };
        let request = Request {
            signature,
            tag: stamp.tag(),
            shape: ask.shape(),
            input,
            output,
            reducer,
            edges: ask.errand.edges,
        };
        (&mut self.engine, Course { route: &self.routes[*route].1, chart: chart.as_ref() }, request)
    }

    /// Gets ready to walk the call that has begun.
    pub(super) fn ride<R>(
        &mut self,
        ask: &Ask,
        views: (View<'_>, View<'_>),
        then: impl FnOnce(&Ride<'_>) -> R,
    ) -> R {
        let (engine, course, request) = self.call(ask, views);
        engine.ride(course, &request, then)
    }

    /// The cursors of the call that has begun, and its waiting.
    pub(super) fn set_out(&self) -> (Walk, Wait) {
        let trip = self.trips.current().expect("a call has begun");
        let route = &self.routes[trip.route].1;
        (Walk::new(route), Wait::new(self.engine.patience(route), self.settings.deadline))
    }

    /// Set by whoever aborts the communicator.
    pub(super) fn abort(&self) -> &Arc<AtomicBool> {
        self.engine.abort()
    }

    /// Marks the communicator as failed in the call that has begun, and tells its peers: its other calls
    /// return this error too.
    #[cold]
    pub(super) fn fail(&mut self, error: Error) -> Error {
        let signature = self.trips.current().expect("a call has begun").signature;
        self.fail_as(error, &signature)
    }

    /// The same, in a call that cannot even begin.
    #[cold]
    pub(super) fn refuse(&mut self, ask: &Ask, error: Error) -> Error {
        if self.failed.is_some() {
            return error;
        }
        let Ok(algorithm) = self.algorithm(&ask.errand) else { return error };
        let sequence = self.sequence + u64::from(ask.errand.is_numbered());
        let signature = ask.errand.signature(self.group.id, (sequence, self.past), algorithm);
        let (from, to) = (ask.errand.peers.1, ask.errand.peers.0);
        self.engine.standing().begin(sequence, &signature.tag().body, Peers::new(from, to));
        self.fail_as(error, &signature)
    }

    fn fail_as(&mut self, error: Error, signature: &Signature) -> Error {
        let error = self.engine.retrace(error);
        // What this rank's system refuses is not the fault of the peer with whom it was wanted.
        self.engine.fail(Some(&error).filter(|error| error.kind() != Kind::System));
        let error = self.engine.blame(error, signature);
        let error = self.engine.record(error.at(self.group.rank).during(signature.short()));
        self.failed = Some(error.clone());
        error
    }

    /// How far this rank has come, for others who ask.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        self.engine.standing()
    }

    /// Fails the communicator, if it has not failed, since another one takes its place.
    pub(super) fn retire(&mut self) {
        if self.failed.is_none() {
            self.failed = Some(Error::new(Kind::Aborted, "the communicator was shrunk").at(self.group.rank));
            self.engine.fail(None);
        }
    }

    /// Opens a route that this rank walks for the first time. All ranks do so in the same call, if they
    /// make the same calls; so they compare the call first, over links that are always the same. Else one
    /// could wait for a link that no other rank is going to open.
    fn agree_and_open(&mut self, ask: &Ask, wanted: Destination, signature: &Signature) -> Result<usize> {
        if wanted.routine == Routine::PointToPoint || self.group.members.len() == 1 {
            return self.open(wanted);
        }
        let routine = Routine::Collective(CollectiveKind::Barrier);
        let algorithm = choice::place_of(algorithm::find(AGREEMENT)?);
        let agreement = Destination { routine, root: 0, algorithm, peers: (None, None), rails: 1 };
        let route = match self.find(agreement) {
            Some(route) => route,
            None => self.open(agreement)?,
        };
        let signature = Signature { counts: mix(signature.counts, u64::MAX), ..*signature };
        let (shape, none) = (Shape::Whole(0), View::empty());
        // A rank that has agreed may send at once: what the others see of it differs by edge, as the call's.
        let (input, output, edges) = (none, none, ask.errand.edges);
        let (signature, tag) = (&signature, &signature.tag());
        let request = Request { signature, tag, shape, input, output, reducer: None, edges };
        let route = &self.routes[route].1;
        let course = Course { route, chart: None };
        self.engine.go_on(Walk::new(route), course, &request, self.settings.deadline)?;
        self.find(wanted).map_or_else(|| self.open(wanted), Ok)
    }

    /// The algorithm that a call walks, by its place in the list of all.
    fn algorithm(&mut self, errand: &Errand) -> Result<u8> {
        let Routine::Collective(kind) = errand.routine else { return Ok(0) };
        let no_board = !self.group.topology.has_board();
        let needs = Needs { rank_order: !errand.commutes, edge_local: errand.edges, no_board };
        self.choose(kind, errand.count * errand.dtype.size(), needs)
    }

    /// Whether the route of a call is open, so that [`Core::begin`] waits for nobody.
    pub(super) fn knows(&mut self, ask: &Ask) -> bool {
        let Ok(algorithm) = self.algorithm(&ask.errand) else { return true };
        self.find(ask.errand.destination(algorithm, self.rails(&ask.errand))).is_some()
    }

    /// How many rails a call takes: all ranks know its size, and which of them are apart.
    fn rails(&self, errand: &Errand) -> u8 {
        let long = errand.count * errand.dtype.size() > LONG;
        match errand.routine {
            Routine::Collective(_) if long && !errand.edges => self.context.rails(&self.group.topology) as u8,
            _ => 1,
        }
    }

    fn find(&self, wanted: Destination) -> Option<usize> {
        self.routes.iter().position(|(known, _)| *known == wanted)
    }

    fn open(&mut self, wanted: Destination) -> Result<usize> {
        let plan = Arc::new(self.plan(wanted)?);
        let deadline = Deadline::after(self.settings.deadline);
        let rails = wanted.rails.into();
        for port in self.engine.missing(&plan, rails) {
            let link = self.context.link(&self.group, port, self.engine.bell(), deadline)?;
            self.engine.add(port, link);
        }
        let board = match plan.board_len() {
            0 => None,
            len => Some(Board::new(self.context.share(&self.group, len, self.engine.bell(), deadline)?)),
        };
        self.routes.push((wanted, self.engine.route(plan, board, rails)));
        Ok(self.routes.len() - 1)
    }

    fn plan(&self, wanted: Destination) -> Result<Plan> {
        let Group { rank, topology, .. } = &self.group;
        match wanted.routine {
            Routine::PointToPoint => Ok(Plan::message(*rank as u32, wanted.peers.0, wanted.peers.1)),
            Routine::Collective(kind) => {
                let algorithm = algorithm::ALL[usize::from(wanted.algorithm)];
                let collective = kind.at(wanted.root as usize);
                algorithm.plan(collective, *rank, topology).ok_or_else(|| {
                    Error::usage(format!(
                        "{} has no plan for {kind} on {} ranks",
                        algorithm.name(),
                        topology.size()
                    ))
                })
            }
        }
    }

    /// What a call would walk.
    pub(super) fn explain(&mut self, collective: Collective, bytes: usize) -> Result<Explanation> {
        let no_board = !self.group.topology.has_board();
        let index = self.choose(collective.kind, bytes, Needs { no_board, ..Needs::default() })?;
        let algorithm = algorithm::ALL[usize::from(index)];
        let topology = &self.group.topology;
        let plans = algorithm::plans(algorithm, collective, topology).expect("what was chosen has a plan");
        let machine = self.context.machine(&self.group);
        let predicted_ns = plan::price(&plans, &machine, bytes as u64);
        Ok(Explanation {
            algorithm: algorithm.name(),
            fingerprint: plans[self.group.rank].fingerprint(),
            predicted_ns: predicted_ns.map_err(|refusal| Error::usage(refusal.to_string()))?,
        })
    }

    fn choose(&mut self, kind: CollectiveKind, bytes: usize, needs: Needs) -> Result<u8> {
        let Self { choice, settings, context, group, .. } = self;
        choice.pick(kind, bytes, needs, settings, || context.machine(group))
    }

    /// A number that all ranks of this communicator agree on and no other communicator has.
    pub(super) fn child_id(&self, color: u64) -> u64 {
        mix(mix(self.group.id, self.sequence), color)
    }
}

/// A call that is being walked. If its operator panics, peers must not wait for this rank, nor read what it
/// lent.
struct Walking<'a> {
    core: &'a mut Core,
    panics: bool,
}

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        if self.panics {
            self.core.fail(panicked());
        }
    }
}

/// What a communicator says after a call of it panicked: only an operator of the caller's own can.
pub(super) fn panicked() -> Error {
    Error::new(Kind::Aborted, "the operator panicked; the communicator cannot be used any more")
}
