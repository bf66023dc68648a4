//! A link: one lane of the endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Endpoint, State};
use super::head::{Head, Kind};
use super::incoming::Front;
use super::lane::Tags;
use super::outgoing::Target;
use super::peer::{Greeting, Peer, Stream, late};
use super::{CREDIT, EAGER, SLOT, refused};
use crate::bootstrap::random;
use crate::error::{Error, Result};
use crate::health::Deadline;
use crate::memory::{Bell, View};
use crate::transport::{Lent, Limits, Link, Message, Received, Tag, Terms, Watch, not_reserved, too_long};

/// How often two ends that set up a link look before they sleep between looks, and how long.
const LOOKS: u32 = 1000;
const NAP: Duration = Duration::from_micros(100);
/// How often one looks for what a peer that has ended sent last.
const LAST_LOOKS: usize = 10;

struct FabricLink {
    endpoint: Arc<Endpoint>,
    lane: u32,
}

/// One end of a link; the peer at the other end of the stream makes the other. `bell` is what this rank sleeps on.
///
/// # Errors
/// `PeerLost` where the stream ends, `Deadline`, `Refused` where the peer sends what no rank sends, `System` where
/// libfabric does not reach it.
pub fn link_over(
    endpoint: &Arc<Endpoint>,
    stream: Stream,
    bell: &Bell,
    deadline: Deadline,
) -> Result<Box<dyn Link>> {
    let number = u64::from_le_bytes(random()?);
    let tags = endpoint.tags(number);
    // Whoever knows the tags may send: so there must be places for it first.
    let lane = endpoint.lock().attach(tags, bell.ringer())?;
    let link = FabricLink { endpoint: endpoint.clone(), lane };
    let mine = Greeting { tag: number, address: endpoint.address.clone() };
    let (peer, theirs, ringer) = Peer::meet(stream, &mine, bell, deadline)?;
    endpoint.lock().lane_and_port(lane).1.rings(ringer);
    link.greet(peer, theirs, &deadline)?;
    Ok(Box::new(link))
}

impl FabricLink {
    /// Says something through libfabric, and waits until the peer has, too: from then on both ends reach each other.
    fn greet(&self, peer: Peer, theirs: Greeting, deadline: &Deadline) -> Result<()> {
        let Tags { heads, bodies } = self.endpoint.tags(theirs.tag);
        {
            let mut state = self.endpoint.lock();
            let endpoint = state.endpoint_at(theirs.address)?;
            let (port, lane) = state.lane(self.lane)?;
            lane.peer = Some(peer);
            lane.target = Some(Target { endpoint, heads, bodies });
            lane.outgoing.say(&Head::control(Kind::Greeting, 0));
            lane.pump(port);
        }
        for looked in 0.. {
            let mut state = self.endpoint.lock();
            state.progress();
            let (port, lane) = state.lane(self.lane)?;
            lane.pump(port);
            lane.usable()?;
            if lane.incoming.greeted() && lane.outgoing.is_empty() {
                return Ok(());
            }
            if looked >= LOOKS {
                lane.listen();
                lane.gone()?;
                if deadline.passed() {
                    return Err(late());
                }
            }
            drop(state);
            if looked < LOOKS { std::thread::yield_now() } else { std::thread::sleep(NAP) }
        }
        unreachable!("the deadline passes first")
    }

    /// Whether one more message may go; an error where none ever will.
    fn has_room(&self, state: &mut State) -> Result<bool> {
        let (_, lane) = state.lane(self.lane)?;
        lane.usable()?;
        if lane.outgoing.has_room() && !lane.is_alone() {
            return Ok(true);
        }
        self.go_on(state)?;
        let (_, lane) = state.lane(self.lane)?;
        let room = lane.outgoing.has_room() && !lane.is_alone();
        if !room {
            lane.check_farewell()?;
        }
        Ok(room)
    }

    /// Has the library go on; says how much came of it.
    #[inline]
    fn go_on(&self, state: &mut State) -> Result<usize> {
        let progressed = state.progress();
        let (port, lane) = state.lane(self.lane)?;
        lane.pump(port);
        Ok(progressed)
    }

    /// The first message, if it lies at hand.
    #[inline]
    fn first(&self, state: &mut State) -> Result<Option<Message<'_>>> {
        let (port, lane) = state.lane(self.lane)?;
        match lane.incoming.front() {
            Front::Whole(head, payload) => {
                let (digest, len) = (head.tag.digest, head.len);
                // SAFETY: a whole payload, which stays where it is until it is released.
                Ok(Some(Message { digest, payload: unsafe { View::from_raw(payload, len) } }))
            }
            Front::Follows(_) => {
                lane.place(false, port);
                Ok(None)
            }
            Front::None | Front::Received | Front::Comes { .. } => Ok(None),
        }
    }
}

fn check(len: usize) -> Result<()> {
    if len > SLOT { Err(too_long(len, SLOT)) } else { Ok(()) }
}

impl Link for FabricLink {
    fn limits(&self) -> Limits {
        Limits { slot: SLOT, credit: CREDIT, receives: true }
    }

    fn reserve(&self, len: usize) -> Result<Option<View<'_>>> {
        check(len)?;
        let mut state = self.endpoint.lock();
        if !self.has_room(&mut state)? {
            return Ok(None);
        }
        let (port, lane) = state.lane(self.lane)?;
        let start = lane.outgoing.reserve(port, len)?;
        // SAFETY: `len` bytes of a free place, which stays where it is until it is committed.
        Ok(Some(unsafe { View::from_raw(start, len) }))
    }

    fn commit(&self, len: usize, tag: &Tag) -> Result<()> {
        let mut state = self.endpoint.lock();
        let (port, lane) = state.lane(self.lane)?;
        if !lane.commit(port, len, tag) {
            return Err(not_reserved(len));
        }
        lane.usable()
    }

    fn send(&self, payload: View<'_>, tag: &Tag) -> Result<bool> {
        check(payload.len())?;
        let mut state = self.endpoint.lock();
        if !self.has_room(&mut state)? {
            return Ok(false);
        }
        let (port, lane) = state.lane(self.lane)?;
        lane.send(port, payload, tag).map(|()| true)
    }

    fn receive(&self, into: View<'_>, digest: u64) -> Result<Received> {
        check(into.len())?;
        let mut state = self.endpoint.lock();
        for looked in [false, true] {
            let (port, lane) = state.lane(self.lane)?;
            match lane.incoming.front() {
                Front::Received => {
                    lane.incoming.release();
                    if lane.incoming.is_urgent() {
                        lane.pump(port);
                    }
                    return Ok(Received::Yes);
                }
                Front::Follows(head) if (head.len, head.tag.digest) == (into.len(), digest) => {
                    lane.place_at(into, port);
                }
                Front::Whole(..) | Front::Follows(_) | Front::Comes { wanted: false } => {
                    return Ok(Received::Peek);
                }
                Front::Comes { wanted: true } => lane.place(false, port),
                // What is wrong, peeking says.
                Front::None if lane.usable().and_then(|()| lane.gone()).is_err() => {
                    return Ok(Received::Peek);
                }
                Front::None => {}
            }
            if !looked {
                self.go_on(&mut state)?;
            }
        }
        Ok(Received::Later)
    }

    fn peek(&self) -> Result<Option<Message<'_>>> {
        let mut state = self.endpoint.lock();
        if let Some(message) = self.first(&mut state)? {
            return Ok(Some(message));
        }
        if self.go_on(&mut state)? > 0
            && let Some(message) = self.first(&mut state)?
        {
            return Ok(Some(message));
        }
        let (_, lane) = state.lane(self.lane)?;
        lane.check_farewell()?;
        Ok(None)
    }

    fn body(&self) -> [u64; 4] {
        let mut state = self.endpoint.lock();
        let (_, lane) = state.lane_and_port(self.lane);
        match lane.incoming.front() {
            Front::Whole(head, _) => head.tag.body,
            _ => [0; 4],
        }
    }

    fn release(&self) -> Result<()> {
        let mut state = self.endpoint.lock();
        let (port, lane) = state.lane(self.lane)?;
        if !lane.incoming.release() {
            return Err(Error::usage("release without peek"));
        }
        // The library has its place again at the next look: first may go what answers the message.
        if lane.incoming.is_urgent() {
            lane.pump(port);
        }
        Ok(())
    }

    fn lend(&self, pieces: &[View<'_>], _terms: Terms<'_>, tag: &Tag) -> Result<Lent> {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        check(len)?;
        if len <= EAGER || pieces.len() > self.endpoint.stretches {
            return Ok(Lent::Never);
        }
        let mut state = self.endpoint.lock();
        if !self.has_room(&mut state)? {
            return Ok(Lent::Later);
        }
        let (port, lane) = state.lane(self.lane)?;
        // What was received here is overwritten as soon as it is released, sent or not.
        if pieces.iter().any(|piece| lane.incoming.holds(*piece) || lane.outgoing.holds(*piece)) {
            return Ok(Lent::Never);
        }
        let released = lane.incoming.tell();
        let lent = lane.outgoing.lend(port, pieces, len, tag, released);
        lent.map_err(|fault| refused(port, "registering memory", fault))?;
        lane.pump_out(port);
        lane.usable().map(|()| Lent::Yes)
    }

    fn settled(&self) -> Result<bool> {
        let mut state = self.endpoint.lock();
        let (_, lane) = state.lane_and_port(self.lane);
        let failed = lane.failed.is_some();
        if !failed && lane.outgoing.is_empty() {
            return Ok(true);
        }
        state.progress();
        if failed {
            return Ok(state.let_go(self.lane));
        }
        let (port, lane) = state.lane(self.lane)?;
        lane.pump(port);
        lane.is_settled()
    }

    fn alive(&self) -> Result<()> {
        let mut state = self.endpoint.lock();
        let (_, lane) = state.lane(self.lane)?;
        if lane.listen().is_some() {
            for _ in 0..LAST_LOOKS {
                state.progress();
            }
        }
        let (_, lane) = state.lane(self.lane)?;
        lane.gone()
    }

    fn watch(&self) -> Option<Watch> {
        Some(self.endpoint.watch(self.lane))
    }

    fn fail(&self) {
        let mut state = self.endpoint.lock();
        let (port, lane) = state.lane_and_port(self.lane);
        if lane.failed.is_none() {
            lane.leave(port, true);
        }
    }
}

impl Drop for FabricLink {
    fn drop(&mut self) {
        let mut state = self.endpoint.lock();
        state.progress();
        let (port, lane) = state.lane_and_port(self.lane);
        if lane.failed.is_none() {
            let failed = lane.holds_memory();
            lane.leave(port, failed);
        }
        while !state.let_go(self.lane) {
            drop(state);
            std::thread::yield_now();
            state = self.endpoint.lock();
            state.progress();
        }
        state.detach(self.lane);
    }
}
