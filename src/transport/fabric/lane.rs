//! What the endpoint keeps of one link.

use std::time::{Duration, Instant};

use super::head::{Head, Kind};
use super::incoming::{Front, Incoming};
use super::operation::{Operations, Part};
use super::outgoing::{Outgoing, Target};
use super::peer::{Over, Peer};
use super::refused;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::memory::{Ringer, View};
use crate::sys::fabric::{Completion, Port};
use crate::transport::Tag;

/// How long one waits for the library to let go of a caller's memory before the endpoint is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The tags that this end's messages bear.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    pub(super) heads: u64,
    pub(super) bodies: u64,
}

/// See the module.
pub(super) struct Lane {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) operations: Operations,
    pub(super) tags: Tags,
    /// Where messages go, once it is known.
    pub(super) target: Option<Target>,
    pub(super) peer: Option<Peer>,
    /// Rings this side.
    ringer: Ringer,
    /// Rings the peer, where completions do not wake it.
    theirs: Option<Ringer>,
    /// Why nothing can be sent or received any more.
    broken: Option<Error>,
    /// When this side was done because of an error.
    pub(super) failed: Option<Instant>,
    /// Whether nobody has this link any more.
    pub(super) closing: bool,
}

// SAFETY: the addresses in it are of its own buffers, or of memory that callers keep valid on whatever thread.
unsafe impl Send for Lane {}

impl Lane {
    pub(super) fn new(port: &Port, id: u32, tags: Tags, injects: usize, ringer: Ringer) -> Result<Self> {
        let mut lane = Self {
            outgoing: Outgoing::new(port, injects)?,
            incoming: Incoming::new(port)?,
            operations: Operations::new(id),
            tags,
            target: None,
            peer: None,
            ringer,
            theirs: None,
            broken: None,
            failed: None,
            closing: false,
        };
        lane.pump(port);
        Ok(lane)
    }

    /// From now on the peer is rung when something has gone to it.
    pub(super) fn rings(&mut self, theirs: Option<Ringer>) {
        self.theirs = theirs;
    }

    /// Hands the library what it is to have, as far as it takes it.
    #[inline]
    pub(super) fn pump(&mut self, port: &Port) {
        if self.incoming.owes() && self.outgoing.can_say() && !self.closing {
            self.outgoing.say(&Head::control(Kind::News, self.incoming.tell()));
        }
        self.pump_out(port);
        if self.incoming.waits() {
            self.pump_in(port);
        }
    }

    fn pump_in(&mut self, port: &Port) {
        let Self { incoming, operations, tags, closing: false, .. } = self else { return };
        if let Err(fault) = incoming.pump(port, tags.heads, operations) {
            self.break_down(refused(port, "receiving", fault));
        }
    }

    /// The same of what is to be sent.
    #[inline]
    pub(super) fn pump_out(&mut self, port: &Port) {
        let Self { outgoing, operations, target: Some(target), theirs, .. } = self else { return };
        // Who is gone hears nothing; nor may its endpoint still be there.
        if !outgoing.waits() || self.peer.as_ref().is_some_and(|peer| peer.over().is_some()) {
            return;
        }
        match outgoing.pump(port, *target, operations) {
            Ok(true) => theirs.iter().for_each(Ringer::ring),
            Ok(false) => {}
            Err(fault) => self.break_down(refused(port, "sending to it", fault)),
        }
    }

    /// Has a short message copied to the peer at once, if it can be; see [`Outgoing::inject`].
    #[inline]
    fn inject(&mut self, port: &Port, len: usize, copied: Option<View<'_>>, tag: &Tag) -> bool {
        let Some(to) = self.target.filter(|_| self.outgoing.injects(len)) else { return false };
        let head = Head { kind: Kind::Short, len, released: self.incoming.tell() as u32, tag: *tag };
        match self.outgoing.inject(port, to, copied, head) {
            Ok(true) => {
                self.theirs.iter().for_each(Ringer::ring);
                true
            }
            Ok(false) => false,
            Err(fault) => {
                self.break_down(refused(port, "sending to it", fault));
                false
            }
        }
    }

    /// Sends a copy of a message, now or when the library takes it.
    #[inline]
    pub(super) fn send(&mut self, port: &Port, payload: View<'_>, tag: &Tag) -> Result<()> {
        let len = payload.len();
        if !self.inject(port, len, Some(payload), tag) {
            let (outgoing, released) = (&mut self.outgoing, self.incoming.tell());
            if outgoing.goes_in_pieces(len) {
                outgoing.lend_pieces(payload, tag, released);
                self.pump_out(port);
                self.outgoing.keep(port)?;
            } else {
                outgoing.copy(port, payload, tag, released)?;
                self.pump_out(port);
            }
        }
        self.usable()
    }

    /// Sends what was written where it was reserved; false where none of that length was.
    pub(super) fn commit(&mut self, port: &Port, len: usize, tag: &Tag) -> bool {
        if self.outgoing.is_reserved(len) && self.inject(port, len, None, tag) {
            return true;
        }
        let made = self.outgoing.commit(len, tag, self.incoming.tell());
        self.pump_out(port);
        made
    }

    /// Hears what came of an operation.
    pub(super) fn complete(&mut self, port: &Port, part: Part, completion: &Completion) {
        self.operations.completed();
        if let Err(error) = self.take(port, part, completion) {
            self.break_down(error);
        }
        self.pump(port);
        self.ringer.ring();
        // What was taken here is gone there.
        self.theirs.iter().for_each(Ringer::ring);
    }

    fn take(&mut self, port: &Port, part: Part, completion: &Completion) -> Result<()> {
        let Self { outgoing, incoming, .. } = self;
        let (len, lost) = (completion.len, completion.fault.is_some());
        match part {
            Part::Sent(place) => outgoing.sent(place, lost),
            Part::Body(place) => outgoing.body_sent(place, lost),
            Part::News(news) => outgoing.said(news),
            Part::Came(_) if lost => {}
            Part::Came(slot) => {
                incoming.come(slot, len, |head| outgoing.hear(head.released))?;
                if incoming.rung() && self.over().is_none() {
                    self.listen();
                }
            }
            // If its sender fails later than now, it had not got its memory back before.
            Part::Placed(_) | Part::Piece(_) if incoming.placed(part, len, lost)? => _ = self.listen(),
            Part::Placed(_) | Part::Piece(_) => {}
        }
        let doing = match part {
            Part::Sent(_) | Part::Body(_) | Part::News(_) => "sending to it",
            Part::Came(_) | Part::Placed(_) | Part::Piece(_) => "receiving from it",
        };
        match completion.fault {
            Some(fault) if !fault.is_canceled() => Err(refused(port, doing, fault)),
            _ => Ok(()),
        }
    }

    #[cold]
    pub(super) fn break_down(&mut self, error: Error) {
        self.broken.get_or_insert(error);
    }

    /// Lets payloads come to buffers: the first message's, or those of all.
    pub(super) fn place(&mut self, all: bool, port: &Port) {
        let Self { incoming, operations, tags, .. } = self;
        match incoming.place(all, port, tags.bodies, operations) {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.break_down(refused(port, "receiving from it", fault)),
            Err(error) => self.break_down(error),
        }
    }

    /// Lets the first message's payload come to where its reader wants it, who asks again until it lies there.
    pub(super) fn place_at(&mut self, into: View<'_>, port: &Port) {
        let Self { incoming, operations, tags, .. } = self;
        // SAFETY: the reader keeps the memory, and looks at it only when the payload has come, or after it failed, when
        // `holds_memory` says that nobody writes there any more.
        if let Err(fault) = unsafe { incoming.place_at(into, port, tags.bodies, operations) } {
            self.break_down(refused(port, "receiving from it", fault));
        }
    }

    /// The library has closed its endpoint: it has nothing any more.
    pub(super) fn forget(&mut self) {
        self.operations.forget();
        self.outgoing.forget();
        self.incoming.forget();
    }

    /// Listens, if the peer has rung to be listened to, or this side can send no more: an error where it is gone.
    pub(super) fn check_farewell(&mut self) -> Result<()> {
        if self.incoming.rung() || self.broken.is_some() {
            self.listen();
        }
        self.gone()
    }

    /// An error where this side is done, or can send no more.
    pub(super) fn usable(&self) -> Result<()> {
        match (&self.failed, &self.broken) {
            (Some(_), _) => {
                Err(Error::new(ErrorKind::PeerLost, "this rank has left the communicator after an error"))
            }
            (None, Some(error)) => Err(self.over().map_or_else(|| error.clone(), Over::error)),
            (None, None) => Ok(()),
        }
    }

    fn over(&self) -> Option<Over> {
        self.peer.as_ref().and_then(Peer::over)
    }

    /// Whether all that was sent has left this process, and nobody reads what was lent. An error where it never will.
    pub(super) fn is_settled(&self) -> Result<bool> {
        match &self.peer {
            _ if self.outgoing.is_empty() => Ok(true),
            // What the peer has released, it has read.
            Some(peer) if self.is_alone() && peer.released() >= self.outgoing.made() => Ok(true),
            Some(peer) => peer.over().map_or_else(|| self.usable(), |over| Err(over.error())).map(|()| false),
            None => self.usable().map(|()| false),
        }
    }

    /// Whether the peer is known to be gone.
    pub(super) fn is_alone(&self) -> bool {
        self.over().is_some()
    }

    /// Listens for what became of the peer.
    pub(super) fn listen(&mut self) -> Option<Over> {
        let over = self.peer.as_mut()?.listen();
        if let Some(Over::Failed(messages)) = over {
            self.incoming.believe(messages);
        }
        over
    }

    /// An error where the peer is known to be gone, and nothing more of it will come.
    pub(super) fn gone(&self) -> Result<()> {
        let Some(over) = self.over() else { return self.usable() };
        let come = over.after().is_none_or(|messages| self.incoming.has(messages));
        let late = || self.peer.as_ref().is_some_and(|peer| peer.ended_before(LINGER));
        let none = matches!(self.incoming.front(), Front::None);
        if none && (come || late()) { Err(over.error()) } else { Ok(()) }
    }

    /// Whether the library still reads or writes memory of this side's caller.
    pub(super) fn holds_memory(&self) -> bool {
        self.outgoing.lends() || self.incoming.comes_to_reader().next().is_some()
    }

    /// This side is done: tells the peer so, and takes back what can be taken back.
    pub(super) fn leave(&mut self, port: Option<&Port>, failed: bool) {
        if failed {
            self.failed = Some(Instant::now());
        }
        self.outgoing.clear();
        let (gone, made, released) = (self.outgoing.gone(), self.outgoing.made(), self.incoming.tell());
        let over = if failed { Over::Failed(gone) } else { Over::Left(made) };
        self.peer.iter().for_each(|peer| peer.farewell(over, released));
        let Some(port) = port.filter(|_| self.listen().is_none()) else { return };
        self.outgoing.say(&Head::control(Kind::Farewell, self.incoming.tell()));
        self.pump(port);
        for part in self.incoming.comes_to_reader() {
            port.cancel(self.operations.context(part));
        }
    }

    /// Whether the library has not let go of a caller's memory in good time after this side failed.
    pub(super) fn is_overdue(&self) -> bool {
        self.failed.is_some_and(|when| self.holds_memory() && when.elapsed() > LINGER)
    }

    /// Nobody has this link any more: gives up what it expects.
    pub(super) fn close(&mut self, port: &Port) {
        self.closing = true;
        for part in self.incoming.expected() {
            port.cancel(self.operations.context(part));
        }
    }

    /// Whether nothing is left to be done for nobody.
    pub(super) fn is_over(&self) -> bool {
        self.closing && self.operations.idle()
    }
}
