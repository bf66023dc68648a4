//! The links of one communicator, in the order in which they were opened.

use super::route::Port;
use crate::error::{Error, Kind, Result};
use crate::memory::View;
use crate::transport::{Lent, Link, Message, Received, Tag, Terms, Watch};

/// What a rank waits for on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A message from the peer.
    Message,
    /// Room for a message to the peer.
    Credit,
}

/// Open links. Their errors name the peer.
#[derive(Default)]
pub struct Links {
    open: Vec<(Port, Box<dyn Link>)>,
    /// The ranks that share this one's core.
    neighbours: Vec<u32>,
}

impl Links {
    /// None yet; `neighbours` are the ranks that share this one's core.
    pub fn new(neighbours: Vec<u32>) -> Self {
        Self { open: Vec::new(), neighbours }
    }

    /// Whether any rank shares this one's core.
    pub fn crowded(&self) -> bool {
        !self.neighbours.is_empty()
    }

    /// Whether a message is missing on a link that only a rank of this core can send.
    pub fn needs_neighbour(&self, at: u32) -> bool {
        self.neighbours.contains(&self.port(at).peer) && !matches!(self.at(at).peek(), Ok(Some(_)))
    }

    /// The place of an open stream.
    pub fn find(&self, port: Port) -> Option<u32> {
        self.open.iter().position(|(known, _)| *known == port).map(|at| at as u32)
    }

    /// Adds a stream.
    pub fn add(&mut self, port: Port, link: Box<dyn Link>) {
        self.open.push((port, link));
    }

    /// Whose stream it is.
    pub fn port(&self, at: u32) -> Port {
        self.open[at as usize].0
    }

    /// The link itself.
    #[inline(always)]
    pub fn at(&self, at: u32) -> &dyn Link {
        &*self.open[at as usize].1
    }

    /// See [`Link::peek`].
    #[inline(always)]
    pub fn peek(&self, at: u32) -> Result<Option<Message<'_>>> {
        self.at(at).peek().map_err(|error| self.blame(at, error))
    }

    /// See [`Link::release`].
    #[inline(always)]
    pub fn release(&self, at: u32) -> Result<()> {
        self.at(at).release().map_err(|error| self.blame(at, error))
    }

    /// See [`Link::reserve`].
    pub fn reserve(&self, at: u32, len: usize) -> Result<Option<View<'_>>> {
        self.at(at).reserve(len).map_err(|error| self.blame(at, error))
    }

    /// See [`Link::answer`].
    pub fn answer(&self, at: u32, len: usize) -> Result<Option<View<'_>>> {
        self.at(at).answer(len).map_err(|error| self.blame(at, error))
    }

    /// See [`Link::commit`].
    pub fn commit(&self, at: u32, len: usize, tag: &Tag) -> Result<()> {
        self.at(at).commit(len, tag).map_err(|error| self.blame(at, error))
    }

    /// See [`Link::send`].
    #[inline(always)]
    pub fn send(&self, at: u32, payload: View<'_>, tag: &Tag) -> Result<bool> {
        self.at(at).send(payload, tag).map_err(|error| self.blame(at, error))
    }

    /// See [`Link::receive`].
    pub fn receive(&self, at: u32, into: View<'_>, tag: &Tag) -> Result<Received> {
        self.at(at).receive(into, tag.digest).map_err(|error| self.blame(at, error))
    }

    /// See [`Link::lend`].
    pub fn lend(&self, at: u32, pieces: &[View<'_>], terms: Terms<'_>, tag: &Tag) -> Result<Lent> {
        self.at(at).lend(pieces, terms, tag).map_err(|error| self.blame(at, error))
    }

    /// Whether none of these links still reads lent memory or holds back what was sent.
    pub fn settled(&self, places: &[u32]) -> Result<bool> {
        let mut settled = true;
        for &at in places {
            settled &= self.at(at).settled().map_err(|error| self.blame(at, error))?;
        }
        Ok(settled)
    }

    /// What to watch while asleep for these links.
    pub fn watches<'a>(&'a self, places: &'a [u32]) -> impl Iterator<Item = Watch> + 'a {
        places.iter().filter_map(|&at| self.at(at).watch())
    }

    /// What stirs when a peer of these links dies, besides.
    pub fn lifelines<'a>(&'a self, places: &'a [u32]) -> impl Iterator<Item = Watch> + 'a {
        places.iter().filter_map(|&at| self.at(at).lifeline())
    }

    /// Fails if a peer of these links is gone. Any stream to it may tell: it may have left before it opened
    /// the one that is waited for. But where that one is a connection, its own end comes behind all that was
    /// sent on it, and must not be overtaken by what another connection says.
    pub fn alive(&self, places: &[u32]) -> Result<()> {
        for (awaited, link) in places.iter().map(|&at| &self.open[at as usize]) {
            let connection = link.watch().is_some();
            let tells = |port: Port| port == *awaited || port.peer == awaited.peer && !connection;
            for (port, link) in self.open.iter().filter(|(port, _)| tells(*port)) {
                link.alive().map_err(|error| error.with(port.peer as usize))?;
            }
        }
        Ok(())
    }

    /// The peers that have left the communicator, each once, as any stream to them tells.
    pub fn left(&self) -> Vec<usize> {
        let left = self.open.iter().filter(|(_, link)| link.alive().is_err());
        let mut left: Vec<usize> = left.map(|(port, _)| port.peer as usize).collect();
        left.sort_unstable();
        left.dedup();
        left
    }

    /// The next message's body on every link that has one, and whose it is.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, [u64; 4])> + '_ {
        let waiting = self.open.iter().filter(|(_, link)| matches!(link.peek(), Ok(Some(_))));
        waiting.map(|(port, link)| (port.peer as usize, link.body()))
    }

    /// Whether nothing that any link lent is still being read; a broken link reads nothing.
    pub fn at_rest(&self) -> bool {
        self.open.iter().all(|(_, link)| link.settled().unwrap_or(true))
    }

    /// Tells every peer that this side is done.
    pub fn fail(&self) {
        self.open.iter().for_each(|(_, link)| link.fail());
    }

    #[cold]
    fn blame(&self, at: u32, error: Error) -> Error {
        match error.kind() {
            Kind::Usage => error,
            _ => error.with(self.port(at).peer as usize),
        }
    }
}
