//! What stands before each payload, and alone before each that follows as a message of its own.
//!
//! ```text
//! length and kind  released  digest  body of the tag | payload
//! 4                4         8       32              |
//! ```
//!
//! All numbers are little-endian.

use super::{EAGER, SLOT};
use crate::transport::Tag;

/// The bytes of a head.
pub(super) const HEAD: usize = 48;

/// What a head begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message; its payload stands behind the head.
    Short = 1,
    /// A message; its payload follows under the tag of bodies.
    Long = 2,
    /// The same, out of memory that its sender takes back if it fails.
    Lent = 3,
    /// No message: it says what was released.
    News = 4,
    /// No message: the first that two ends say to each other.
    Greeting = 5,
    /// No message: it wakes the peer, which will see that this end is done.
    Farewell = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Of the payload.
    pub(super) len: usize,
    /// How many messages its sender has released, modulo 2³².
    pub(super) released: u32,
    pub(super) tag: Tag,
}

impl Head {
    /// One of no message.
    pub(super) fn control(kind: Kind, released: u64) -> Self {
        Self { kind, len: 0, released: released as u32, tag: Tag { digest: 0, body: [0; 4] } }
    }

    /// How many bytes stand behind it.
    pub(super) fn behind(&self) -> usize {
        if self.kind == Kind::Short { self.len } else { 0 }
    }

    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&((self.kind as u32) << 24 | self.len as u32).to_le_bytes());
        head[4..8].copy_from_slice(&self.released.to_le_bytes());
        let words = [self.tag.digest].into_iter().chain(self.tag.body);
        for (place, word) in head[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        head
    }

    /// Nothing where no rank would send this, as a message of `whole` bytes.
    pub(super) fn decode(head: &[u8; HEAD], whole: usize) -> Option<Self> {
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let kinds = [Kind::Short, Kind::Long, Kind::Lent, Kind::News, Kind::Greeting, Kind::Farewell];
        let kind = kinds.into_iter().find(|kind| *kind as u32 == half(0) >> 24)?;
        let len = (half(0) & 0xff_ffff) as usize;
        let possible = match kind {
            Kind::Short => 0..=EAGER,
            Kind::Long | Kind::Lent => EAGER + 1..=SLOT,
            Kind::News | Kind::Greeting | Kind::Farewell => 0..=0,
        };
        let tag = Tag { digest: word(8), body: [word(16), word(24), word(32), word(40)] };
        let head = Self { kind, len, released: half(4), tag };
        (possible.contains(&len) && whole == HEAD + head.behind()).then_some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_encoding() {
        let tag = Tag { digest: u64::MAX - 1, body: [1, 2, 3, u64::MAX] };
        for (kind, len) in
            [(Kind::Short, 0), (Kind::Short, EAGER), (Kind::Long, EAGER + 1), (Kind::Lent, SLOT)]
        {
            let head = Head { kind, len, released: u32::MAX, tag };
            assert_eq!(Head::decode(&head.encode(), HEAD + head.behind()), Some(head));
            assert_eq!(Head::decode(&head.encode(), HEAD + head.behind() + 1), None);
        }
        let news = Head::control(Kind::News, 7 << 32 | 5);
        assert_eq!(Head::decode(&news.encode(), HEAD), Some(Head { released: 5, ..news }));
    }

    #[test]
    fn other_kinds_and_lengths_are_refused() {
        let tag = Tag { digest: 0, body: [0; 4] };
        for (kind, len) in
            [(Kind::Short, EAGER + 1), (Kind::Long, EAGER), (Kind::Lent, SLOT + 1), (Kind::News, 1)]
        {
            let head = Head { kind, len, released: 0, tag };
            assert_eq!(Head::decode(&head.encode(), HEAD + head.behind()), None, "{head:?}");
        }
        assert_eq!(Head::decode(&[0; HEAD], HEAD), None);
        assert_eq!(Head::decode(&[0xff; HEAD], HEAD), None);
    }
}
