//! What a rank that knocks says of itself, and what for.

use super::secret::digest;
use super::wire::{Reader, Writer};

/// Names the handshake; its last byte changes with it.
pub(super) const MAGIC: [u8; 8] = *b"kolo-hi4";
/// The bytes of a hello.
pub(super) const HELLO: usize = 136;

/// This build's version, as ranks compare it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To meet at rank 0.
    Rendezvous,
    /// To link two ranks on a communicator that a call on `origin` made.
    Link { communicator: u64, origin: u64, channel: u8, via: Via },
    /// To ask where a rank stands.
    Reports,
    /// To have it write down what it did last.
    Record,
    /// To ask whether it has left such a communicator, or will never be in it.
    Left { communicator: u64, origin: u64 },
    /// To ask what it has called on a communicator.
    Calls { communicator: u64 },
    /// To ask how far it is in agreeing on who is left of a communicator.
    Stage { communicator: u64 },
    /// To meet at rank 0 as one of those that take newcomers in: all of them know the attempt by this number.
    Grow { number: u64 },
    /// To be taken in.
    Join,
}

impl Purpose {
    /// Whether the stream is kept; else it ends with an answer.
    pub(super) fn stays(self) -> bool {
        !matches!(
            self,
            Self::Reports | Self::Record | Self::Left { .. } | Self::Stage { .. } | Self::Calls { .. }
        )
    }
}

/// Which kind of stream a link wants; both may exist at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    Unix,
    Tcp,
}

/// What the dialer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) job: [u8; 32],
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) size: u32,
    pub(super) purpose: Purpose,
    /// Whether its connections over a network are to be sealed.
    pub(super) encrypts: bool,
    pub(super) nonce: [u8; 32],
}

impl Hello {
    /// What this build says.
    pub(super) fn new(
        job: &str,
        (from, to): (usize, usize),
        size: usize,
        purpose: Purpose,
        encrypts: bool,
        nonce: [u8; 32],
    ) -> Self {
        let version = VERSION.to_owned();
        let job = digest(job.as_bytes());
        Self { version, job, from: from as u32, to: to as u32, size: size as u32, purpose, encrypts, nonce }
    }

    /// Who says it: a newcomer has no number yet.
    pub(super) fn who(&self) -> String {
        match self.purpose {
            Purpose::Join => "a newcomer".into(),
            _ => format!("rank {}", self.from),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let origin = match self.purpose {
            Purpose::Link { origin, .. } | Purpose::Left { origin, .. } => origin,
            _ => 0,
        };
        let (kind, communicator, channel, via) = match self.purpose {
            Purpose::Rendezvous => (0, 0, 0, 0),
            Purpose::Link { communicator, channel, via, .. } => (1, communicator, channel, via as u8),
            Purpose::Reports => (2, 0, 0, 0),
            Purpose::Stage { communicator } => (3, communicator, 0, 0),
            Purpose::Grow { number } => (4, number, 0, 0),
            Purpose::Join => (5, 0, 0, 0),
            Purpose::Record => (6, 0, 0, 0),
            Purpose::Left { communicator, .. } => (7, communicator, 0, 0),
            Purpose::Calls { communicator } => (8, communicator, 0, 0),
        };
        let mut version = [0; 32];
        let len = self.version.len().min(version.len());
        version[..len].copy_from_slice(&self.version.as_bytes()[..len]);
        let hello = Writer::default().raw(&MAGIC).raw(&version).raw(&self.job);
        let hello = hello.u32(self.from).u32(self.to).u32(self.size);
        let hello = hello.u8(kind).u8(channel).u8(via).u8(self.encrypts.into());
        hello.u64(communicator).u64(origin).raw(&self.nonce).done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return None;
        }
        let version = reader.array::<32>()?;
        let job = reader.array()?;
        let (from, to, size) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (kind, channel, via, encrypts) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let (communicator, origin) = (reader.u64()?, reader.u64()?);
        let nonce = reader.array()?;
        reader.end()?;
        let via = [Via::Unix, Via::Tcp].into_iter().find(|&known| known as u8 == via)?;
        let purpose = match kind {
            0 => Purpose::Rendezvous,
            1 => Purpose::Link { communicator, origin, channel, via },
            2 => Purpose::Reports,
            3 => Purpose::Stage { communicator },
            4 => Purpose::Grow { number: communicator },
            5 => Purpose::Join,
            6 => Purpose::Record,
            7 => Purpose::Left { communicator, origin },
            8 => Purpose::Calls { communicator },
            _ => return None,
        };
        let encrypts = [false, true].into_iter().find(|&known| u8::from(known) == encrypts)?;
        let version = std::str::from_utf8(&version).ok()?.trim_end_matches('\0').to_owned();
        Some(Self { version, job, from, to, size, purpose, encrypts, nonce })
    }
}
