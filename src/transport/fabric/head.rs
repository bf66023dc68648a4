//! What stands before each payload, and alone before each that follows as a message of its own.
//!
//! ```text
//! length and kind  released  digest  body of the tag | payload
//! 4                4         8       32              |
//! ```
//!
//! A message of few bytes, whose tag is nearly that of the one before, has a brief head: so both fit into two cache lines
//! of the provider shm's, where crossing into a third costs a quarter of a ping-pong.
//!
//! ```text
//! length, step, kind  released  digest | payload
//! 4                   4         8      |
//! ```
//!
//! All numbers are little-endian.

use super::{EAGER, SLOT};
use crate::transport::Tag;

/// The bytes of a head.
pub(super) const HEAD: usize = 48;

/// The bytes of a brief head, and how many bytes its message may have.
pub(super) const BRIEF: usize = 16;
pub(super) const FEW: usize = 16;

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
    /// A message; its payload follows under the tag of bodies, in pieces.
    Pieced = 7,
    /// A message of [`FEW`] bytes at most, behind a brief head.
    Brief = 8,
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
        if matches!(self.kind, Kind::Short | Kind::Brief) { self.len } else { 0 }
    }

    /// The brief head of this message after one that bore `last`; nothing where it needs a whole one.
    #[inline]
    pub(super) fn encode_brief(&self, last: &[u64; 4]) -> Option<[u8; BRIEF]> {
        let step = step(last, &self.tag.body).filter(|_| self.len <= FEW)?;
        let first = (Kind::Brief as u32) << 24 | u32::from(step) << 16 | self.len as u32;
        let mut head = [0; BRIEF];
        head[..4].copy_from_slice(&first.to_le_bytes());
        head[4..8].copy_from_slice(&self.released.to_le_bytes());
        head[8..].copy_from_slice(&self.tag.digest.to_le_bytes());
        Some(head)
    }

    /// Nothing where no rank would send this after `last`, as a message of `whole` bytes.
    pub(super) fn decode_brief(head: &[u8; BRIEF], whole: usize, last: &[u64; 4]) -> Option<Self> {
        let [len, more, step, kind] = [head[0], head[1], head[2], head[3]];
        let word = |at: usize| head[at..at + 4].try_into().expect("four bytes");
        let mut tag =
            Tag { digest: u64::from_le_bytes(head[8..].try_into().expect("eight bytes")), body: *last };
        let stepped = &mut tag.body[usize::from(step >> 6)];
        *stepped = stepped.wrapping_add(u64::from(step & 63));
        let len = usize::from(len);
        let possible = (kind, more) == (Kind::Brief as u8, 0) && len <= FEW && whole == BRIEF + len;
        possible.then_some(Self { kind: Kind::Brief, len, released: u32::from_le_bytes(word(4)), tag })
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
        let kind = match half(0) >> 24 {
            1 => Kind::Short,
            2 => Kind::Long,
            3 => Kind::Lent,
            4 => Kind::News,
            5 => Kind::Greeting,
            6 => Kind::Farewell,
            7 => Kind::Pieced,
            _ => return None,
        };
        let len = (half(0) & 0xff_ffff) as usize;
        let possible = match kind {
            Kind::Short => 0..=EAGER,
            Kind::Long | Kind::Lent => EAGER + 1..=SLOT,
            Kind::Pieced => 1..=EAGER,
            Kind::News | Kind::Greeting | Kind::Farewell => 0..=0,
            Kind::Brief => return None,
        };
        let tag = Tag { digest: word(8), body: [word(16), word(24), word(32), word(40)] };
        let head = Self { kind, len, released: half(4), tag };
        (possible.contains(&len) && whole == HEAD + head.behind()).then_some(head)
    }
}

/// How one gets from a tag's body to the next one's: which word is greater, and by how much. Nothing where it takes more.
#[inline]
fn step(from: &[u64; 4], to: &[u64; 4]) -> Option<u8> {
    let word = (0..4).find(|&word| from[word] != to[word]).unwrap_or(0);
    let more = to[word].wrapping_sub(from[word]);
    (more < 64 && from[word + 1..] == to[word + 1..]).then_some((word << 6) as u8 | more as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brief_head_survives_its_encoding() {
        let last = [1, 2, 3, u64::MAX];
        for (body, fits) in [
            (last, true),
            ([64, 2, 3, u64::MAX], true),
            ([1, 65, 3, u64::MAX], true),
            ([1, 2, 3, 0], true),
            ([65, 2, 3, u64::MAX], false),
            ([1, 1, 3, u64::MAX], false),
            ([2, 2, 4, u64::MAX], false),
        ] {
            for len in [0, 8, FEW, FEW + 1] {
                let tag = Tag { digest: u64::MAX - 1, body };
                let head = Head { kind: Kind::Brief, len, released: u32::MAX, tag };
                let brief = head.encode_brief(&last);
                assert_eq!(brief.is_some(), fits && len <= FEW, "{body:?}, {len} bytes");
                let Some(brief) = brief else { continue };
                assert_eq!(Head::decode_brief(&brief, BRIEF + len, &last), Some(head));
                assert_eq!(Head::decode_brief(&brief, BRIEF + len + 1, &last), None);
            }
        }
    }

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
