//! Inside the door: who comes in, where streams wait for their links' turn, and who waits for a knock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::dial::{dial, within};
use super::handshake::{Refusal, same_encryption, same_job, same_version};
use super::hello::{Hello, Purpose, Via};
use super::reception::{Guest, News, Reception};
use super::secret::{Secret, random};
use super::stream::{Stream, room_for_another};
use super::{Node, inquiry};
use crate::config::Place;
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Standings};
use crate::topology::rail;

/// How many streams may wait to be fetched.
const MAILBOX: usize = 4096;
/// How many communicators are remembered that were left.
const LEFT: usize = 4096;
/// How soon, and then how rarely, a rank that waits for a peer's knock looks whether that one will still come.
pub(super) const FIRST_PROBE: Duration = Duration::from_millis(20);
const PROBE: Duration = Duration::from_secs(1);

/// A rank that is asked to write its record does so at most so often.
const RECORDS: Duration = Duration::from_millis(200);

/// What the attendant shares with those who wait.
pub(super) struct Hall {
    pub(super) me: usize,
    pub(super) size: usize,
    pub(super) job: String,
    pub(super) secret: Secret,
    /// Whether what leads over a network is sealed.
    pub(super) encrypts: bool,
    /// Its abstract UNIX socket.
    pub(super) name: String,
    pub(super) state: Mutex<State>,
    pub(super) delivered: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// Streams whose link's turn has not come, or why they could not be kept.
    pub(super) mailbox: HashMap<Appointment, Result<Stream>>,
    /// Why a rank came that the others cannot go together with.
    odds: Option<String>,
    /// Why nobody can come in at present.
    trouble: Option<Error>,
    /// What came of those who were refused.
    refusals: String,
    /// Communicators that this rank is in.
    here: HashSet<u64>,
    /// Those that it has left, the last ones: who comes for their links finds the stream's end.
    left: VecDeque<u64>,
}

impl State {
    /// Whether this rank has left a communicator, or will never be in it: who failed in the call that makes one does not
    /// make it, while others may have.
    fn is_over(&self, communicator: u64, origin: u64) -> bool {
        self.left.contains(&communicator) || self.left.contains(&origin) && !self.here.contains(&communicator)
    }

    /// Whether somebody here may still ask for such a stream.
    fn awaits(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Link { communicator, origin, .. } => !self.is_over(communicator, origin),
            _ => false,
        }
    }
}

/// Which stream with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Appointment {
    pub(super) peer: usize,
    pub(super) purpose: Purpose,
}

impl Hall {
    /// A stream to the peer: its lower rank dials, the higher one waits.
    pub(super) fn keep(&self, appointment: Appointment, node: &Node, deadline: &Deadline) -> Result<Stream> {
        if self.me > appointment.peer {
            return self.wait(appointment, node, deadline);
        }
        let places = places(appointment.purpose, node);
        let ranks = (self.me, appointment.peer);
        let mut failure = None;
        for place in &places {
            let hello =
                Hello::new(&self.job, ranks, self.size, appointment.purpose, self.encrypts, random()?);
            match dial(place, &hello, &self.secret, false, deadline) {
                Ok(stream) => return Ok(stream),
                // The first address is the best one, so that what is wrong there tells most.
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Kind::Usage, "it opened no TCP door")))
    }

    /// Waits until the peer has knocked.
    fn wait(&self, appointment: Appointment, node: &Node, deadline: &Deadline) -> Result<Stream> {
        let (mut state, mut pause) = (self.lock(), FIRST_PROBE);
        let mut probe = Deadline::after(Some(pause));
        loop {
            if let Some(stream) = state.mailbox.remove(&appointment) {
                return stream;
            }
            if let Some(why) = &state.odds {
                return Err(Error::new(Kind::Refused, why.as_str()));
            }
            if deadline.passed() {
                if let Some(trouble) = state.trouble.take() {
                    return Err(trouble);
                }
                // Whom the attendant has refused it tells only when somebody is let in.
                drop(state);
                self.catch_up();
                state = self.lock();
                if let Some(stream) = state.mailbox.remove(&appointment) {
                    return stream;
                }
                let text = format!("it did not connect{}{}", within(deadline), state.refusals);
                return Err(Error::new(Kind::Deadline, text));
            }
            let slice = [deadline.left(), probe.left()].into_iter().flatten().min().unwrap_or(pause);
            let (news, _) = self.delivered.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner);
            state = news;
            // Whoever knocks wakes those that wait here, as often as it likes: only the clock counts.
            if probe.passed() && !state.mailbox.contains_key(&appointment) {
                drop(state);
                pause = PROBE.min(2 * pause);
                probe = Deadline::after(Some(pause));
                let gone = match appointment.purpose {
                    Purpose::Link { communicator, origin, .. } => {
                        self.is_gone(appointment.peer, node, (communicator, origin))?
                    }
                    _ => None,
                };
                if gone.is_some() {
                    self.catch_up();
                }
                state = self.lock();
                if let Some(why) = gone.filter(|_| !state.mailbox.contains_key(&appointment)) {
                    return Err(Error::new(Kind::PeerLost, why));
                }
            }
        }
    }

    /// Why a peer will not come to a communicator's links any more, if so.
    ///
    /// # Errors
    /// `System` where this rank can open no socket to ask it, nor have another one come.
    pub(super) fn is_gone(
        &self,
        peer: usize,
        node: &Node,
        (communicator, origin): (u64, u64),
    ) -> Result<Option<&'static str>> {
        match self.ask(peer, node, Purpose::Left { communicator, origin }, &Deadline::after(Some(PROBE / 10)))
        {
            Err(error) if error.kind() == Kind::PeerLost => Ok(Some("it ended before it connected")),
            Err(_) => room_for_another().map(|()| None),
            Ok(answer) if answer == [1] => Ok(Some("it has left the communicator")),
            Ok(_) => Ok(None),
        }
    }

    /// Waits until whoever has been let in is in the mailbox: the attendant answers no later knock before that, and
    /// this is one.
    pub(super) fn catch_up(&self) {
        let soon = Deadline::after(Some(PROBE));
        let (ranks, purpose) = ((self.me, self.me), Purpose::Reports);
        let own = Place::Unix(self.name.clone());
        let knock = || -> Result<()> {
            let hello = Hello::new(&self.job, ranks, self.size, purpose, self.encrypts, random()?);
            inquiry::hear(&dial(&own, &hello, &self.secret, false, &soon)?, &soon).map(drop)
        };
        // Where nobody answers here, nobody is let in either.
        let _ = knock();
    }

    /// What the peer says to a question.
    pub(super) fn ask(
        &self,
        peer: usize,
        node: &Node,
        purpose: Purpose,
        deadline: &Deadline,
    ) -> Result<Vec<u8>> {
        let through_tcp = node.tcp.iter().map(|address| Place::Tcp(address.to_string()));
        let mut failure = None;
        for place in std::iter::once(Place::Unix(node.door.clone())).chain(through_tcp) {
            let hello = Hello::new(&self.job, (self.me, peer), self.size, purpose, self.encrypts, random()?);
            match dial(&place, &hello, &self.secret, false, deadline) {
                Ok(stream) => return inquiry::hear(&stream, deadline),
                Err(error) => failure = Some(error),
            }
            if deadline.passed() {
                break;
            }
        }
        Err(failure.expect("a rank has a door"))
    }

    /// Attends to who knocks until the other end of `end` is closed.
    pub(super) fn attend(&self, mut reception: Reception, standings: &Standings, end: &UnixStream) {
        let forever = Deadline::after(None);
        let mut recorded: Option<Instant> = None;
        loop {
            let mut judge = |hello: &Hello| self.welcome(hello);
            let news = reception.attend(&self.secret, &mut judge, &[end.as_fd()], &forever);
            let (guests, odds, trouble) = match news {
                Ok(News::Guests(guests)) => (guests, None, None),
                Ok(News::Odds(why, guests)) => (guests, Some(why), None),
                Ok(News::Late) => continue,
                Ok(News::Gone) => return,
                Err(error) => (Vec::new(), None, Some(error)),
            };
            let troubled = trouble.is_some();
            let mut state = self.lock();
            state.refusals = reception.refusals();
            state.trouble = trouble;
            state.odds = state.odds.take().or(odds);
            let mut witnesses = Vec::new();
            for Guest { stream, hello } in guests {
                match (hello.purpose, stream) {
                    (Purpose::Reports, Ok(stream)) => {
                        inquiry::answer(&stream, &inquiry::encode(&standings.reports()));
                    }
                    (Purpose::Record, Ok(stream)) => witnesses.push(stream),
                    (Purpose::Left { communicator, origin }, Ok(stream)) => {
                        inquiry::answer(&stream, &[state.is_over(communicator, origin).into()]);
                    }
                    (Purpose::Calls { communicator }, Ok(stream)) => {
                        inquiry::answer(&stream, &inquiry::encode_calls(&standings.calls(communicator)));
                    }
                    (Purpose::Stage { communicator }, Ok(stream)) => {
                        let stage = standings.stage(communicator);
                        inquiry::answer(&stream, &inquiry::encode_stage(&stage));
                    }
                    (Purpose::Link { .. }, stream) => deliver(&mut state, stream, &hello),
                    _ => {}
                }
            }
            drop(state);
            self.delivered.notify_all();
            // All ranks may ask at once. What could not be written, nobody here can be told.
            if !witnesses.is_empty() && recorded.is_none_or(|when| when.elapsed() > RECORDS) {
                let _ = standings.write();
                recorded = Some(Instant::now());
            }
            witnesses.iter().for_each(|stream| inquiry::answer(stream, &[]));
            if troubled {
                // Such as no descriptor being left: another attempt fails as soon.
                std::thread::sleep(PROBE / 10);
            }
        }
    }

    /// This rank is in that communicator.
    pub(super) fn enter(&self, communicator: u64) {
        self.lock().here.insert(communicator);
    }

    /// Nobody waits for this communicator's links any more, nor for those of communicators that were not made of it.
    pub(super) fn leave(&self, communicator: u64) {
        let mut state = self.lock();
        state.here.remove(&communicator);
        if state.left.len() == LEFT {
            state.left.pop_front();
        }
        state.left.push_back(communicator);
        let mailbox = std::mem::take(&mut state.mailbox);
        state.mailbox =
            mailbox.into_iter().filter(|(appointment, _)| state.awaits(appointment.purpose)).collect();
    }

    /// Whether somebody who proved the secret may come in.
    fn welcome(&self, hello: &Hello) -> Result<(), Refusal> {
        same_job(hello, &self.job)?;
        same_version(hello)?;
        same_encryption(hello, self.encrypts)?;
        let (from, to) = (hello.from as usize, hello.to as usize);
        let expected = match hello.purpose {
            Purpose::Link { .. } => from < to,
            Purpose::Reports | Purpose::Record | Purpose::Left { .. } => from < self.size,
            Purpose::Stage { .. } | Purpose::Calls { .. } => from < self.size,
            Purpose::Rendezvous | Purpose::Grow { .. } | Purpose::Join => false,
        };
        if !expected || to != self.me || hello.size as usize != self.size {
            let why =
                format!("rank {from} of {} knocked at rank {}'s door for rank {to}", hello.size, self.me);
            return Err(Refusal::stranger(why));
        }
        match self.lock().mailbox.len() < MAILBOX {
            true => Ok(()),
            false => Err(Refusal::stranger(format!("rank {from} came while {MAILBOX} streams were waiting"))),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(state: &mut State, stream: Result<Stream>, hello: &Hello) {
    let Purpose::Link { communicator, origin, channel, via } = hello.purpose else { return };
    let via = match &stream {
        Ok(Stream::Unix(_)) => Via::Unix,
        Ok(Stream::Tcp(_)) => Via::Tcp,
        Err(_) => via,
    };
    if !state.awaits(hello.purpose) {
        return;
    }
    // How it came counts, not how it says that it came.
    let purpose = Purpose::Link { communicator, origin, channel, via };
    state.mailbox.insert(Appointment { peer: hello.from as usize, purpose }, stream);
}

/// Where a peer's door is; for a stream on a rail, there first.
fn places(purpose: Purpose, node: &Node) -> Vec<Place> {
    match purpose {
        Purpose::Link { via: Via::Tcp, channel, .. } => {
            let rail = rail(channel) % node.tcp.len().max(1);
            let doors = node.tcp[rail..].iter().chain(&node.tcp[..rail]);
            doors.map(|address| Place::Tcp(address.to_string())).collect()
        }
        _ => vec![Place::Unix(node.door.clone())],
    }
}
