//! What two linked ranks share; see the picture in [`super`].

use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU64;

use crate::error::{Error, Kind};
use crate::memory::Shareable;
use crate::transport::fifo::{Apart, CREDIT, SLOT};
use crate::transport::presence::Presence;

/// The largest payload that lies with its header: what fits its line and that line's neighbour, which cores
/// fetch together.
pub(super) const PACKED: usize = 104;

/// How many headers a ring has: more than there can be buffers on their way, since small messages need none, and
/// many of them may be on their way while the ranks' cores are far apart.
pub(super) const HEADERS: usize = 16;

const _: () = assert!(HEADERS / 2 >= CREDIT);

/// How many buffers two ranks have between them, and how many one of them may have and have sent: so each can
/// have `CREDIT` messages on their way, and in an exchange keeps what it receives.
pub(super) const BUFFERS: u32 = 12;
pub(super) const CAP: u32 = BUFFERS - CREDIT as u32;

/// All that two linked ranks share; index 0 is what the lower rank writes.
#[repr(C)]
pub(super) struct Layout {
    pub(super) boards: [Board; 2],
    pub(super) rings: [[Header; HEADERS]; 2],
    pub(super) buffers: [Buffer; BUFFERS as usize],
}

// SAFETY: atomics and `UnsafeCell`s of bytes, and padding that nobody looks at.
unsafe impl Shareable for Layout {}
// SAFETY: packed bytes belong to one rank at a time, handed over by `Header::number` and `Board::released`;
// so do buffers, handed over by messages and `Board::returned`. Both are reached by address only.
unsafe impl Sync for Layout {}

#[repr(C, align(4096))]
pub(super) struct Board {
    pub(super) released: Apart<AtomicU64>,
    pub(super) returned: Apart<AtomicU64>,
    pub(super) presence: Apart<Presence>,
    pub(super) bodies: [[AtomicU64; 4]; HEADERS],
}

#[repr(C, align(128))]
pub(super) struct Header {
    pub(super) number: AtomicU64,
    pub(super) digest: AtomicU64,
    pub(super) about: AtomicU64,
    pub(super) packed: UnsafeCell<[u8; PACKED]>,
}

const _: () = assert!(std::mem::offset_of!(Header, packed) + PACKED == 128);

impl Header {
    /// Words in the packed bytes of a message whose payload lies elsewhere.
    pub(super) fn words(&self) -> [u64; 2] {
        // SAFETY: that many bytes lie there, aligned to 8; every pattern is a value, and it is read once.
        unsafe { self.packed.get().cast::<[u64; 2]>().read_volatile() }
    }

    /// Writes them; the header is the writer's until it is published.
    pub(super) fn set_words(&self, words: [u64; 2]) {
        // SAFETY: as above.
        unsafe { self.packed.get().cast::<[u64; 2]>().write_volatile(words) };
    }
}

/// Its neighbours do not begin at the same place of a page: caches would put their lines into the same sets.
#[repr(C, align(64))]
pub(super) struct Buffer {
    pub(super) payload: UnsafeCell<[u8; SLOT]>,
    apart: [u8; 320],
}

/// What stands in place of a buffer's number where the payload lies in memory that the sender lends; the packed
/// bytes say where.
pub(super) const LENT: u32 = 0xff;

/// The same, where the reader may only read it.
pub(super) const SHOWN: u32 = 0xfd;

/// The same, where the reader only copies it, and stores what it reads, so that lines migrate.
pub(super) const HANDED: u32 = 0xfc;

/// What stands there where the payload is an answer that lies in the place of what the reader lent; the packed
/// bytes say with which message.
pub(super) const ANSWERED: u32 = 0xfe;

const _: () = assert!(BUFFERS < HANDED);

/// What a header says of its message, in one word.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) len: u32,
    /// Where the payload lies, if it is not packed.
    pub(super) buffer: u32,
    /// The low bits of how many messages the sender has released.
    pub(super) news: u32,
}

impl About {
    #[inline]
    pub(super) fn word(self) -> u64 {
        u64::from(self.len) | u64::from(self.buffer & 0xff) << 32 | u64::from(self.news) << 40
    }

    /// Whether a payload that is not packed lies in no buffer, but in what one of the ranks lends.
    #[inline]
    pub(super) fn is_lent(self) -> bool {
        self.buffer >= HANDED
    }

    #[inline]
    pub(super) fn of(word: u64) -> Self {
        Self { len: word as u32, buffer: (word >> 32) as u32 & 0xff, news: (word >> 40) as u32 }
    }
}

/// The peer wrote something that no correct one could have written.
#[cold]
pub(super) fn forged(what: &str) -> Error {
    Error::new(Kind::PeerLost, format!("it wrote {what} into shared memory that no rank could mean"))
}
