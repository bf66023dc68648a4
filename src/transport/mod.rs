//! Ways to move bytes between two ranks.
//!
//! A transport knows no collective. It connects two ranks by a [`Link`]: one ordered stream of messages
//! in each direction, with credit. To add a transport, write one file and one line below
//! [`all`].

pub mod fabric;
mod fifo;
mod handover;
mod lease;
pub mod local;
mod pool;
mod presence;
mod room;
pub mod shm;
pub mod tcp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::handover::{HANDOVER, Handover};

use crate::CHECKED;
use crate::bootstrap::{Door, Node, Tcp};
use crate::config;
use crate::error::{Error, Result};
use crate::health::Deadline;
use crate::kernel;
use crate::memory::{Allocations, Bell, View};
use crate::topology::{Channel, Cost};
use fabric::Fabric;
use local::{Hub, Local};
use shm::Shm;

/// What a link can do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most payload bytes of one message.
    pub slot: usize,
    /// How many messages may always be on their way in one direction; there may be room for more.
    pub credit: usize,
    /// Whether [`Link::receive`] is worth trying.
    pub receives: bool,
}

/// How much a step lends to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What its lender's nearest cache holds, or what a lender with nothing else to do may as well copy.
    Little,
    /// More, but caches hold it; it is only copied.
    Much,
    /// More than they hold.
    Huge,
}

/// On what terms a message is lent.
///
/// `whole` is what lies around it, as far as nobody but the lending call writes there.
#[derive(Clone, Copy, Debug)]
pub enum Terms<'a> {
    /// It is read, not written.
    Read {
        /// See above.
        whole: View<'a>,
        /// How much the step lends that way in all.
        size: Size,
    },
    /// The reader may store its answer in the very place, at any time before that answer has come: nobody of
    /// this rank looks there meanwhile.
    Answer {
        /// See above.
        whole: View<'a>,
    },
}

/// What became of a message to be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// It is on its way.
    Yes,
    /// Not yet: there is no credit.
    Later,
    /// This link cannot, or would gain nothing by it: it is to be copied.
    Never,
}

/// What became of a message to be received in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It lies there, and is released.
    Yes,
    /// It has not come, or not whole: to be asked for again, with the same place.
    Later,
    /// It lies at hand already, or is another one, or none will come: [`Link::peek`] tells.
    Peek,
}

/// What is said with every message: the call that it belongs to.
///
/// The digest is compared on every message. The body is what an error prints of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// A hash of the body.
    pub digest: u64,
    /// The signature itself, encoded by the engine; see `engine::signature`.
    pub body: [u64; 4],
}

/// A message that has come, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The digest of its call.
    pub digest: u64,
    /// The payload; it may be written, as a scratch or as the next message to the same peer.
    pub payload: View<'a>,
}

impl Message<'_> {
    /// Whether this is the message of this call and length that is waited for.
    #[inline(always)]
    pub fn is(&self, tag: &Tag, len: usize) -> bool {
        !CHECKED || self.digest == tag.digest && self.payload.len() == len
    }
}

/// What a parked rank must be woken by, besides its bell.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The descriptor.
    pub fd: std::os::fd::RawFd,
    /// Whether to wake when it can be written, too.
    pub write: bool,
    /// Whether something that was sent still waits in this process: then it is watched, whoever is waited for.
    pub unsent: bool,
    /// After how long to look again, where the descriptor does not tell of all that comes.
    pub within: Option<Duration>,
}

/// One ordered stream of messages in each direction between two ranks. Nothing here blocks.
///
/// Methods take `&self` so that a step can hold views of several links at once; a link is used by one
/// thread at a time.
pub trait Link: Send {
    /// What it can do; never changes.
    fn limits(&self) -> Limits;

    /// Where to write the next message of `len` bytes, or nothing while there is no credit. Asking
    /// again before [`Link::commit`] gives the same place.
    fn reserve(&self, len: usize) -> Result<Option<View<'_>>>;

    /// As [`Link::reserve`], where the next message is made of the one that is being peeked, element by
    /// element: some links let it lie in the very same place, be it memory that the peer has lent.
    fn answer(&self, len: usize) -> Result<Option<View<'_>>> {
        self.reserve(len)
    }

    /// Sends the reserved message of `len` bytes.
    fn commit(&self, len: usize, tag: &Tag) -> Result<()>;

    /// Sends a copy of `payload`, reserved or not; or says that there is no credit.
    fn send(&self, payload: View<'_>, tag: &Tag) -> Result<bool> {
        send_copy(self, payload, tag)
    }

    /// Lets the next message come to `into` at once, without a copy between, where the link can do that and the
    /// message has this length and this digest; see [`Limits::receives`]. While a part of it lies there, there is
    /// nothing to peek.
    fn receive(&self, into: View<'_>, digest: u64) -> Result<Received> {
        let _ = (into, digest);
        Ok(Received::Peek)
    }

    /// The next message, or nothing while none has come whole. It stays until [`Link::release`].
    fn peek(&self) -> Result<Option<Message<'_>>>;

    /// The body of the peeked message's tag.
    fn body(&self) -> [u64; 4];

    /// Gives the peeked message's room back to the sender.
    fn release(&self) -> Result<()>;

    /// Sends `pieces`, one after the other, as one message without copying them. They are used on these terms
    /// until [`Link::settled`], after [`Link::fail`] too.
    fn lend(&self, pieces: &[View<'_>], terms: Terms<'_>, tag: &Tag) -> Result<Lent>;

    /// Whether nothing lent is still being used and nothing committed waits in this process.
    ///
    /// After [`Link::fail`] a reader that has begun is all that is waited for: it was rung, its next
    /// [`Link::peek`] says that the lender is gone, and it lets go when it fails, too. Where the reader is
    /// another process nothing is waited for: memory that it may write is made unreachable to it. No call may
    /// return while its buffers are lent.
    fn settled(&self) -> Result<bool>;

    /// An error where the peer takes no more part: it left, failed, or died. Costs a system call; for a
    /// rank that has waited a while. What the peer sent and released before is still there: after an error
    /// look for progress once more, and give up only if there is none.
    fn alive(&self) -> Result<()>;

    /// What else wakes a rank that waits for this link; nothing where the peer rings its bell.
    fn watch(&self) -> Option<Watch>;

    /// What stirs when the peer dies without a word, where [`Link::watch`] gives nothing: for ranks that have slept a
    /// while already.
    fn lifeline(&self) -> Option<Watch> {
        None
    }

    /// Tells the peer that this side is done with the communicator because of an error, takes back what
    /// was lent and not read yet, and gives back the peeked message. Nothing is sent or received after.
    fn fail(&self);
}

/// Why a transport cannot connect two ranks; for `kolo doctor`.
pub type Reason = String;

/// One way to move bytes between two ranks.
pub trait Transport: Send + Sync {
    /// Its name, as `KOLO_TRANSPORT` and `--transport` use it.
    fn name(&self) -> &'static str;

    /// What crossing costs, or why it cannot be done. Both sides must answer alike, and so must every
    /// other rank that asks about the two.
    fn reach(&self, me: &Node, peer: &Node) -> Result<Cost, Reason>;

    /// The most payload bytes of a message over its links.
    fn slot(&self) -> usize;

    /// When it needs TCP doors to be open.
    fn tcp_doors(&self) -> Tcp {
        Tcp::Never
    }

    /// Why no rank of this host can have it, where that is known without company.
    fn available(&self) -> Result<(), Reason> {
        Ok(())
    }

    /// What this rank's card says of it, whose doors are open at these addresses.
    fn offer(&self, doors: &[SocketAddr]) -> String {
        let _ = doors;
        String::new()
    }

    /// Whether its streams can be on several networks at once.
    fn takes_rails(&self) -> bool {
        false
    }

    /// Opens a link; the peer does the same at the same time.
    fn connect(&self, meeting: &Meeting<'_>) -> Result<Box<dyn Link>>;

    /// How descriptors go from one rank to another, where its ranks can share memory.
    fn handover(&self) -> Option<&dyn Handover> {
        None
    }

    /// Whether its links lend more where ranks have allocated their memory together ([`Meeting::allocations`]).
    fn shares_allocations(&self) -> bool {
        false
    }
}

/// Every transport, the preferred first. A `hub` is what ranks have that are threads of one process.
pub fn all(hub: Option<&Arc<Hub>>, links: &config::Links) -> Vec<Box<dyn Transport>> {
    known(hub, links, false)
}

/// Every transport; those that serve only where they are named may be `named`.
fn known(hub: Option<&Arc<Hub>>, links: &config::Links, named: bool) -> Vec<Box<dyn Transport>> {
    let (fabric, tcp) = (Fabric::new(links.clone(), named), tcp::Tcp { encrypt: links.encrypt });
    vec![Box::new(Local::new(hub.cloned())), Box::new(Shm), Box::new(fabric), Box::new(tcp)]
}

/// When TCP doors must be open for these transports: the first one serves wherever it reaches, so doors that
/// it needs are needed in any case.
pub fn tcp_doors(transports: &[Box<dyn Transport>]) -> Tcp {
    match transports.first().map_or(Tcp::Never, |first| first.tcp_doors()) {
        Tcp::Never => transports.iter().map(|transport| transport.tcp_doors()).max().unwrap_or(Tcp::Never),
        _ => Tcp::Always,
    }
}

/// The transports of these names, in this order; all of them where none are named.
pub fn choose(
    names: Option<&[String]>,
    hub: Option<&Arc<Hub>>,
    links: &config::Links,
) -> Result<Vec<Box<dyn Transport>>> {
    let Some(names) = names else { return Ok(all(hub, links)) };
    let mut left = known(hub, links, true);
    let take = |name: &String| match left.iter().position(|transport| transport.name() == name) {
        Some(at) => Ok(left.remove(at)),
        None => {
            let known: Vec<_> = all(hub, links).iter().map(|transport| transport.name()).collect();
            let known = known.join(", ");
            Err(Error::usage(format!("unknown transport `{name}`, or named twice; known are {known}")))
        }
    };
    names.iter().map(take).collect()
}

/// Two ranks about to be linked.
pub struct Meeting<'a> {
    /// This rank, as the job numbers it.
    pub me: usize,
    /// The other one.
    pub peer: usize,
    /// The communicator that the link will serve; the same number on all its ranks.
    pub communicator: u64,
    /// The one that a call was made on that made it; itself where there is none.
    pub origin: u64,
    /// Which of the pair's streams.
    pub channel: Channel,
    /// What the other rank told about itself.
    pub node: &'a Node,
    /// Where authenticated streams to it are had.
    pub door: &'a Arc<Door>,
    /// Rung by the peer when something happens that this rank may sleep for.
    pub bell: &'a Arc<Bell>,
    /// The memory that ranks have allocated together.
    pub allocations: &'a Arc<Allocations>,
    /// When to give up.
    pub deadline: Deadline,
    /// How long the other one's host may be silent before it counts as lost; nothing stands for ever.
    pub keepalive: Option<Duration>,
}

/// [`Link::send`], for any link.
fn send_copy<L: Link + ?Sized>(link: &L, payload: View<'_>, tag: &Tag) -> Result<bool> {
    let Some(place) = link.reserve(payload.len())? else { return Ok(false) };
    kernel::copy(&[place], payload);
    link.commit(payload.len(), tag).map(|()| true)
}

/// A message that no slot holds.
#[cold]
fn too_long(len: usize, slot: usize) -> Error {
    Error::usage(format!("a message of {len} bytes; a slot holds {slot}"))
}

/// A [`Link::commit`] without its [`Link::reserve`].
#[cold]
fn not_reserved(len: usize) -> Error {
    Error::usage(format!("commit of {len} bytes that were not reserved"))
}
