//! The engine walks plans over links.
//!
//! It knows no algorithm and no transport. One call is a [`Walk`] over a [`Route`]; [`Engine::go_on`]
//! blocks until it is done, [`Ride::advance`] takes the steps that can be taken now.

mod board;
mod brief;
mod chart;
mod couple;
mod extent;
mod link;
mod route;
mod signature;
mod vigil;
mod wait;
mod walk;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use brief::Sprint;
use vigil::{Loss, Plight};

pub use board::Board;
pub use chart::Chart;
pub use extent::{Counts, Extents, Shape};
pub use link::{Links, Wanted};
pub use route::{Port, Route, ports};
pub use signature::{Routine, Signature, Stamp, mix};
pub use vigil::Vigil;
pub use wait::{Next, Patience, Tenancy, Wait};
pub use walk::{Blocker, Call, Progress, Walk};

use crate::error::{Error, Kind, Result};
use crate::health::{Home, Standing};
use crate::kernel::{self, Reducer};
use crate::memory::{Bell, Scratch, View};
use crate::plan::Plan;
use crate::transport::{Link, Tag, Watch};

/// What a caller wants done.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What all ranks must agree on.
    pub signature: &'a Signature,
    /// The same, as it travels.
    pub tag: &'a Tag,
    /// What the vectors are made of.
    pub shape: Shape<'a>,
    /// The caller's input; in place, the output.
    pub input: View<'a>,
    /// The caller's output.
    pub output: View<'a>,
    /// How to combine, where the collective does.
    pub reducer: Option<&'a Reducer>,
    /// Whether each rank knows only its own edges: then lengths are compared per edge.
    pub edges: bool,
}

impl Request<'_> {
    /// Combines what a step reads into what it writes; `finish` where it is the last to do so.
    #[inline(always)]
    fn combine(&self, into: &[View<'_>], from: &[View<'_>], finish: bool) {
        match (from, self.reducer) {
            ([first, ..], _) if first.is_empty() => {}
            (&[source], reducer) if reducer.is_none() || !finish => match into {
                // What lies in its place already is not stored anew.
                [stored, to @ ..] if stored.same_place(source) && !to.is_empty() => kernel::copy(to, source),
                _ => kernel::copy(into, source),
            },
            (_, Some(reducer)) => reducer.fold(into, from, finish),
            (_, None) => unreachable!("the prover refuses plans that combine where the collective does not"),
        }
    }
}

/// The links of one communicator and what walking over them needs.
pub struct Engine {
    links: Links,
    bell: Arc<Bell>,
    scratch: Scratch,
    /// The most payload bytes of a message; the same on all ranks.
    slot: usize,
    patience: Patience,
    home: Option<Home>,
    /// Beyond so many bytes of vectors outputs are written past the caches.
    overflow: usize,
    abort: Arc<AtomicBool>,
    vigil: Vigil,
}

impl Engine {
    /// An engine without links, of a rank that shares its host so.
    pub fn new(bell: Arc<Bell>, slot: usize, tenancy: Tenancy, abort: Arc<AtomicBool>, vigil: Vigil) -> Self {
        let Tenancy { patience, neighbours, home, overflow } = tenancy;
        let (links, scratch) = (Links::new(neighbours), Scratch::default());
        Self { links, bell, scratch, slot, patience, home, overflow, abort, vigil }
    }

    /// How far this rank has come on the communicator.
    #[inline(always)]
    pub fn standing(&self) -> &Arc<Standing> {
        self.vigil.standing()
    }

    /// What peers ring.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// How long this engine tries on a route before it sleeps.
    pub fn patience(&self, route: &Route) -> Patience {
        if route.prompt { self.patience } else { self.patience.over_sockets() }
    }

    /// Set by whoever aborts the communicator.
    pub fn abort(&self) -> &Arc<AtomicBool> {
        &self.abort
    }

    /// The streams of a plan that are not open yet, on so many rails.
    pub fn missing(&self, plan: &Plan, rails: usize) -> Vec<Port> {
        ports(plan, rails).into_iter().filter(|port| self.links.find(*port).is_none()).collect()
    }

    /// Adds an open stream.
    pub fn add(&mut self, port: Port, link: Box<dyn Link>) {
        self.links.add(port, link);
    }

    /// A plan whose streams are all open, on so many rails, and whose board is shared, ready to be walked.
    pub fn route(&self, plan: Arc<Plan>, board: Option<Board>, rails: usize) -> Route {
        Route::new(plan, board, &self.links, rails)
    }

    /// Tells every peer that this side is done with the communicator, because of an error if there is one. Returns when
    /// nobody reads this rank's memory any more: a reader that has begun is told, and stops at the end of its step.
    pub fn fail(&self, because_of: Option<&Error>) {
        // Before peers learn that this rank has left: they ask why.
        if let Some((error, peer)) = because_of.and_then(|error| Some((error, error.peer()?))) {
            self.vigil.differ(error, peer);
        }
        self.vigil.fail(because_of.and_then(Error::peer));
        self.links.fail();
        while !self.links.at_rest() {
            std::thread::yield_now();
        }
    }

    /// What a call failed with; where it was alike on both sides, but an earlier one was not, that is told instead.
    pub fn retrace(&self, error: Error) -> Error {
        match (error.calls(), error.peer()) {
            (Some([mine, theirs]), Some(peer)) if mine == theirs => {
                self.vigil.look_back(peer).unwrap_or(error)
            }
            _ => error,
        }
    }

    /// What a call failed with, with what a peer that has left has to say of it: it may have left because of another.
    pub fn blame(&self, error: Error, signature: &Signature) -> Error {
        let Some(peer) = error.peer().filter(|_| error.kind() == Kind::PeerLost) else { return error };
        let Loss { why, culprit, clash } = self.vigil.explain_loss(signature, peer);
        // Who hears that this rank has failed may ask at once whether two calls were not alike.
        let clash = clash.map(|clash| self.vigil.learn(clash, signature, peer));
        self.vigil.fail(culprit.or(Some(peer)));
        if let Some(error) = clash {
            return error;
        }
        let error = error.because(&why);
        match culprit {
            Some(rank) => error.blaming(rank),
            None => error,
        }
    }

    /// Writes down what led to an error, if it is to be written anywhere; the error says where.
    pub fn record(&self, error: Error) -> Error {
        self.vigil.record(error)
    }

    /// The chart of a route for a call's shape, if that borrows nothing.
    pub fn chart(&mut self, route: &Route, request: &Request<'_>) -> Option<Chart> {
        let (shape, size) = (request.shape.lasting()?, request.signature.dtype.size());
        let extents = Extents::new(&route.plan, shape, size, self.slot, route.rails);
        self.scratch.ensure(extents.scratch());
        let mut chart = Chart::new(route, extents);
        // A sprint streams nothing.
        if request.signature.count as usize * size > self.overflow / 2 {
            chart.brief = None;
        }
        Some(chart)
    }

    /// Walks a small call as far as one comes with a few looks at each step: to the end, or to where
    /// [`Engine::go_on`] takes over.
    #[inline(always)]
    pub fn sprint(&mut self, course: Course<'_>, request: &Request<'_>) -> Result<Option<Walk>> {
        let Course { route, chart: Some(chart @ Chart { brief: Some(brief), .. }) } = course else {
            return Ok(Some(Walk::new(course.route)));
        };
        let Self { links, scratch, patience, .. } = self;
        Sprint { links, request, route, chart, scratch: scratch.view() }.run(brief, patience.looks())
    }

    /// Gets ready to walk.
    pub fn ride<R>(
        &mut self,
        course: Course<'_>,
        request: &Request<'_>,
        then: impl FnOnce(&Ride<'_>) -> R,
    ) -> R {
        let Course { route, chart } = course;
        let own;
        let extents = match chart {
            Some(chart) => &chart.extents,
            None => {
                let size = request.signature.dtype.size();
                own = Extents::new(&route.plan, request.shape, size, self.slot, route.rails);
                self.scratch.ensure(own.scratch());
                &own
            }
        };
        let patience = self.patience(route);
        let Self { links, scratch, bell, home, overflow, abort, vigil, .. } = self;
        let (input, mut output) = (request.input, request.output);
        let in_place = output.same_place(input);
        let vectors = if in_place { input.len().max(output.len()) } else { input.len() + output.len() };
        let overflows = vectors > *overflow;
        if overflows && !(in_place && route.reads) {
            output = output.streamed();
        }
        let board = route.board.as_ref().map_or_else(View::empty, Board::view);
        let call = Call { request, extents, memories: [input, output, scratch.view(), board], overflows };
        then(&Ride { course, links, call, bell, abort, patience, home: home.as_ref(), vigil })
    }

    /// Walks a route to its end, on the calling thread.
    #[inline(never)]
    pub fn go_on(
        &mut self,
        walk: Walk,
        course: Course<'_>,
        request: &Request<'_>,
        allowed: Option<Duration>,
    ) -> Result<()> {
        self.ride(course, request, |ride| ride.go_on(walk, allowed))
    }
}

/// A route, and its chart for a call's shape, if there is one.
#[derive(Clone, Copy)]
pub struct Course<'a> {
    /// The route.
    pub route: &'a Route,
    /// Drawn by [`Engine::chart`].
    pub chart: Option<&'a Chart>,
}

/// One call over one route.
pub struct Ride<'a> {
    course: Course<'a>,
    links: &'a Links,
    call: Call<'a>,
    bell: &'a Bell,
    abort: &'a AtomicBool,
    patience: Patience,
    home: Option<&'a Home>,
    vigil: &'a Vigil,
}

impl Ride<'_> {
    /// Walks to the end, with all patience.
    fn go_on(&self, mut walk: Walk, allowed: Option<Duration>) -> Result<()> {
        if let Some(home) = self.home {
            home.settle();
        }
        let mut wait = Wait::new(self.patience, allowed);
        loop {
            match self.advance(&mut walk)? {
                Progress::Done => return Ok(()),
                Progress::Moved => wait.reset(),
                Progress::Blocked => match self.wait(&walk, &mut wait) {
                    Next::Again => {}
                    Next::Park(nap) => self.park(&mut walk, &mut wait, nap)?,
                    Next::Late => return Err(self.late(&walk, &wait, allowed)),
                    Next::Aborted => return Err(aborted()),
                },
            }
        }
    }

    /// What to do while nothing moves.
    pub fn wait(&self, walk: &Walk, wait: &mut Wait) -> Next {
        let neighbour = self.links.crowded() && walk.needs_neighbour(self.course.route, self.links);
        wait.next(self.abort, neighbour)
    }

    /// Takes every step that can be taken now.
    pub fn advance(&self, walk: &mut Walk) -> Result<Progress> {
        walk.advance(self.course, self.links, &self.call, self.vigil.standing())
    }

    /// Sleeps until a peer rings or a socket stirs, at most `nap`; then looks whether peers still live.
    fn park(&self, walk: &mut Walk, wait: &mut Wait, nap: Duration) -> Result<()> {
        let (bell, watches) = (self.bell, self.watches(walk, wait));
        bell.announce(!watches.is_empty());
        if self.advance(walk)? != Progress::Blocked {
            bell.cancel();
            return Ok(());
        }
        bell.sleep(&watches, Some(nap))?;
        self.check(walk, wait)
    }

    /// The descriptors that must wake a sleeper on this walk.
    pub fn watches(&self, walk: &Walk, wait: &Wait) -> Vec<Watch> {
        // What was sent but still waits in this process must go out, whoever is waited for.
        let unsent = self.links.watches(&self.course.route.links).filter(|watch| watch.unsent);
        // At first only what blocks: not to be woken by each of many messages of which all are needed.
        let waited = if wait.is_long() { self.waited_for(walk) } else { walk.blockers().collect() };
        let lifelines = self.links.lifelines(&waited).filter(|_| wait.is_long());
        self.links.watches(&waited).chain(unsent).chain(lifelines).collect()
    }

    /// For a walk that has waited a while: fails if a peer that it waits for is gone, and nothing of it is
    /// left to be read; or if a message lies on any link that no rank sends which makes the same calls.
    /// That one would never be read, since another plan than the peer's is walked here. If it has waited long, it says
    /// for whom, and fails if one of those waits in another call of the same number.
    pub fn check(&self, walk: &mut Walk, wait: &mut Wait) -> Result<()> {
        let Request { signature, edges, .. } = *self.call.request;
        let mut waiting = self.links.waiting();
        if let Some((peer, theirs)) = waiting.find(|(_, theirs)| signature.contradicts(*theirs, edges)) {
            return Err(signature.mismatch(theirs, peer));
        }
        let Err(lost) = self.links.alive(&self.waited_for(walk)) else { return self.watch_over(walk, wait) };
        let progress = self.advance(walk)?;
        // The last message of one that has left may be here by now.
        let awaited = |at: u32| Some(self.links.port(at).peer as usize) == lost.peer();
        match progress == Progress::Blocked && self.waited_for(walk).into_iter().any(awaited) {
            true => Err(lost),
            false => Ok(()),
        }
    }

    fn waited_for(&self, walk: &Walk) -> Vec<u32> {
        walk.waited_for(self.course.route, self.links)
    }

    /// See [`Vigil`].
    fn watch_over(&self, walk: &Walk, wait: &mut Wait) -> Result<()> {
        let waited = wait.waited();
        if waited < wait::LONG {
            return Ok(());
        }
        let (awaited, signature) = (self.awaited(walk), self.call.request.signature);
        let plight = self.plight(&awaited, waited);
        self.vigil.tell(plight);
        match wait.asks(waited) {
            true => {
                self.vigil.ask(plight).and_then(|()| self.vigil.ask_who_left(signature, self.links.left()))
            }
            false => Ok(()),
        }
    }

    fn plight<'a>(&'a self, awaited: &'a [(u32, bool)], waited: Duration) -> Plight<'a> {
        let Request { signature, edges, .. } = *self.call.request;
        Plight { signature, edges, awaited, waited }
    }

    /// The ranks that unfinished lanes wait for, each once, and whether for a message.
    fn awaited(&self, walk: &Walk) -> Vec<(u32, bool)> {
        let mut awaited: Vec<(u32, bool)> = Vec::new();
        for (.., blocker) in walk.standing() {
            let Some(Blocker::Link(at, wanted)) = blocker else { continue };
            let peer = self.links.port(at).peer;
            if awaited.iter().all(|(known, _)| *known != peer) {
                awaited.push((peer, wanted == Wanted::Message));
            }
        }
        awaited
    }

    /// What to say when the deadline has passed: who is waited for, where, and why they do not come.
    pub fn late(&self, walk: &Walk, wait: &Wait, allowed: Option<Duration>) -> Error {
        let waits = walk.standing().filter_map(|(lane, round, step, blocker)| match blocker? {
            Blocker::Lane(other) => Some(format!("lane {lane} for lane {other}")),
            Blocker::Link(at, wanted) => {
                let peer = self.links.port(at).peer;
                let what = match wanted {
                    Wanted::Message => "a message from",
                    Wanted::Credit => "room at",
                };
                Some(format!("{what} rank {peer} (lane {lane}, round {round}, step {step})"))
            }
        });
        let waits = waits.collect::<Vec<_>>().join(", ");
        let allowed = allowed.map_or(0.0, |allowed| allowed.as_secs_f64());
        let awaited = self.awaited(walk);
        let plight = self.plight(&awaited, wait.waited());
        // Peers may ask later what this rank waited for.
        self.vigil.tell(plight);
        let (why, culprit) = self.vigil.explain(plight);
        let text = format!(
            "nothing came within the deadline of {allowed} s in {}; this rank waits for {waits}{why}",
            self.call.request.signature
        );
        let error = Error::new(Kind::Deadline, text);
        match culprit.or_else(|| awaited.first().map(|(peer, _)| *peer as usize)) {
            Some(peer) => error.with(peer),
            None => error,
        }
    }
}

/// What a call says after somebody aborted its communicator.
pub fn aborted() -> Error {
    Error::new(Kind::Aborted, "the communicator was aborted")
}
