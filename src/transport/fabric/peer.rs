//! The stream through the peer's door: first the ends' addresses go over it, then it tells what became of the peer.

use std::io::{IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::set_tcp_nodelay;

use crate::bootstrap::{Carrier, Connection};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::memory::{Bell, Ringer};
use crate::transport::shm::{receive_hello, send_hello};

/// The longest address of an endpoint.
const ADDRESS: usize = 512;
/// The bytes of a greeting: a word that tells what it is, the tag, the address after its length.
const GREETING: usize = 8 + 8 + 2 + ADDRESS;
const WORD: [u8; 8] = *b"kolo/fab";
/// The bytes of a farewell: what became of the peer, how many messages it had sent, and how many it had released.
const FAREWELL: usize = 17;

/// What an end tells the other one before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// What messages to it are to bear.
    pub(super) tag: u64,
    /// Where its endpoint is.
    pub(super) address: Vec<u8>,
}

/// Why no more will come than has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer is done, after so many messages.
    Left(u64),
    /// It is done because of an error; so many of its messages are to be believed.
    Failed(u64),
    /// Its stream ended without a word.
    Cut,
}

impl Over {
    /// How many messages are to be read before this is news; nothing where nobody knows.
    pub(super) fn after(self) -> Option<u64> {
        match self {
            Self::Left(messages) | Self::Failed(messages) => Some(messages),
            Self::Cut => None,
        }
    }

    pub(super) fn error(self) -> Error {
        let text = match self {
            Self::Left(_) => "it has left the communicator",
            Self::Failed(_) => "it left the communicator after an error of its own",
            Self::Cut => "its connection ended without a word: see whether it still runs",
        };
        Error::new(Kind::PeerLost, text)
    }
}

/// A stream through the peer's door.
pub enum Stream {
    /// Within a host: the ends give each other their bells, and ring them.
    Unix(UnixStream),
    /// Over a network.
    Tcp(Connection),
}

/// The stream, after the greetings.
pub(super) struct Peer {
    stream: Box<dyn Carrier>,
    /// What has come of a farewell.
    heard: Vec<u8>,
    over: Option<Over>,
    /// How many messages of this side's it had released then, as far as it said.
    released: u64,
    /// When that was heard.
    ended: Option<Instant>,
}

impl Peer {
    /// Exchanges greetings; within a host bells, too.
    pub(super) fn meet(
        stream: Stream,
        mine: &Greeting,
        bell: &Bell,
        deadline: Deadline,
    ) -> Result<(Self, Greeting, Option<Ringer>)> {
        let (stream, ringer): (Box<dyn Carrier>, _) = match stream {
            Stream::Tcp(stream) => {
                let prepared = set_tcp_nodelay(&stream, true).and_then(|()| ioctl_fionbio(&stream, true));
                prepared.map_err(|cause| Error::system("preparing a stream to a peer", cause))?;
                (stream.boxed(), None)
            }
            Stream::Unix(stream) => {
                send_hello(&stream, &bell.descriptors())?;
                let [page, event] = receive_hello(&stream, deadline)?;
                (Box::new(stream), Some(Ringer::from_descriptors(page, event)?))
            }
        };
        let mut peer = Self { stream, heard: Vec::new(), over: None, released: 0, ended: None };
        let mut greeting = [0; GREETING];
        greeting[..8].copy_from_slice(&WORD);
        greeting[8..16].copy_from_slice(&mine.tag.to_le_bytes());
        greeting[16..18].copy_from_slice(&(mine.address.len() as u16).to_le_bytes());
        greeting[18..18 + mine.address.len()].copy_from_slice(&mine.address);
        // A new stream's buffers hold that much.
        peer.say(&greeting);
        let theirs = peer.hear(&deadline)?;
        let len = usize::from(u16::from_le_bytes([theirs[16], theirs[17]]));
        if theirs[..8] != WORD || len > ADDRESS {
            return Err(Error::new(Kind::Refused, "it sent what no rank sends"));
        }
        let tag = u64::from_le_bytes(theirs[8..16].try_into().expect("eight bytes"));
        Ok((peer, Greeting { tag, address: theirs[18..18 + len].to_vec() }, ringer))
    }

    fn hear(&mut self, deadline: &Deadline) -> Result<[u8; GREETING]> {
        let mut greeting = [0; GREETING];
        let mut filled = 0;
        while filled < GREETING {
            match self.stream.read(&mut [IoSliceMut::new(&mut greeting[filled..])]) {
                Ok(0) | Err(Errno::CONNRESET) => return Err(Over::Cut.error()),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if deadline.passed() => return Err(late()),
                Err(Errno::AGAIN) => self.sleep(deadline.left()),
                Err(errno) => return Err(Error::system("reading from a peer's stream", errno)),
            }
        }
        Ok(greeting)
    }

    /// Sleeps until something comes, at most so long.
    fn sleep(&self, most: Option<Duration>) {
        let most = most.and_then(|most| Timespec::try_from(most).ok());
        let _ = poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], most.as_ref());
    }

    /// Says why no more will come from this side, and how many messages it has released.
    pub(super) fn farewell(&self, over: Over, released: u64) {
        let (kind, messages) = match over {
            Over::Left(messages) => (1, messages),
            Over::Failed(messages) => (2, messages),
            Over::Cut => return,
        };
        let mut farewell = [kind; FAREWELL];
        farewell[1..9].copy_from_slice(&messages.to_le_bytes());
        farewell[9..].copy_from_slice(&released.to_le_bytes());
        self.say(&farewell);
    }

    /// Whoever does not hear it will see that the stream has ended.
    fn say(&self, bytes: &[u8]) {
        let _ = self.stream.write(&[IoSlice::new(bytes)]);
    }

    /// Listens for a farewell, which costs a system call while there is none.
    pub(super) fn listen(&mut self) -> Option<Over> {
        while self.over.is_none() {
            let mut bytes = [0; FAREWELL];
            let wanted = FAREWELL - self.heard.len();
            match self.stream.read(&mut [IoSliceMut::new(&mut bytes[..wanted])]) {
                Ok(count @ 1..) => self.take(&bytes[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Ok(_) | Err(_) => self.end(Over::Cut),
            }
        }
        self.over
    }

    fn end(&mut self, over: Over) {
        (self.over, self.ended) = (Some(over), Some(Instant::now()));
    }

    /// Whether the peer was gone that long ago.
    pub(super) fn ended_before(&self, ago: Duration) -> bool {
        self.ended.is_some_and(|ended| ended.elapsed() > ago)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        let Ok(farewell) = <&[u8; FAREWELL]>::try_from(&self.heard[..]) else { return };
        let number = |at: usize| u64::from_le_bytes(farewell[at..at + 8].try_into().expect("eight bytes"));
        let messages = number(1);
        self.released = number(9);
        self.end(match farewell[0] {
            1 => Over::Left(messages),
            2 => Over::Failed(messages),
            _ => Over::Cut,
        });
    }

    /// How many messages of this side's the peer had released when it was done.
    pub(super) fn released(&self) -> u64 {
        self.released
    }

    /// What was heard.
    pub(super) fn over(&self) -> Option<Over> {
        self.over
    }
}

pub(super) fn late() -> Error {
    Error::new(Kind::Deadline, "it did not set up its end of a libfabric link in time")
}
