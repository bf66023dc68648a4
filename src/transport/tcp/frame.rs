//! What stands before each payload on the wire.
//!
//! ```text
//! kind  length  digest  body of the tag | payload | zeros up to a multiple of 16
//! 4     4       8       32              |
//! ```
//!
//! All numbers are little-endian. Since every frame's length is a multiple of 16, payloads lie aligned in
//! a receive buffer that begins aligned, however many frames are in it.

use super::SLOT;
use crate::transport::Tag;

/// The bytes before the payload.
pub(super) const HEAD: usize = 48;
/// What a frame's length is a multiple of.
pub(super) const ALIGN: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message.
    Message = 1,
    /// The last frame of a rank that is done.
    Left = 2,
    /// The last frame of a rank that is done because of an error.
    Failed = 3,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Of the payload.
    pub(super) len: usize,
    pub(super) tag: Tag,
}

impl Frame {
    pub(super) fn message(len: usize, tag: &Tag) -> Self {
        Self { kind: Kind::Message, len, tag: *tag }
    }

    /// A frame that says good-bye.
    pub(super) fn last(kind: Kind) -> Self {
        Self { kind, len: 0, tag: Tag { digest: 0, body: [0; 4] } }
    }

    /// The zeros after the payload.
    pub(super) fn padding(&self) -> usize {
        self.len.next_multiple_of(ALIGN) - self.len
    }

    /// Its length on the wire.
    pub(super) fn total(&self) -> usize {
        HEAD + self.len + self.padding()
    }

    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        head[4..8].copy_from_slice(&(self.len as u32).to_le_bytes());
        let words = [self.tag.digest].into_iter().chain(self.tag.body);
        for (place, word) in head[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        head
    }

    /// Nothing where no rank would send this: another kind, or a payload that no slot holds.
    pub(super) fn decode(head: &[u8; HEAD]) -> Option<Self> {
        let half = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let kind =
            [Kind::Message, Kind::Left, Kind::Failed].into_iter().find(|kind| *kind as u32 == half(0))?;
        let len = half(4) as usize;
        let most = if kind == Kind::Message { SLOT } else { 0 };
        let tag = Tag { digest: word(8), body: [word(16), word(24), word(32), word(40)] };
        (len <= most).then_some(Self { kind, len, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_encoding() {
        let tag = Tag { digest: u64::MAX - 1, body: [1, 2, 3, u64::MAX] };
        for len in [0, 1, 15, 16, 17, SLOT - 1, SLOT] {
            let frame = Frame::message(len, &tag);
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
            assert_eq!(frame.total() % ALIGN, 0);
            assert!((0..ALIGN).contains(&(frame.total() - HEAD - len)));
        }
        let last = Frame::last(Kind::Failed);
        assert_eq!(Frame::decode(&last.encode()), Some(last));
    }

    #[test]
    fn other_kinds_and_lengths_are_refused() {
        let head = Frame::message(8, &Tag { digest: 0, body: [0; 4] }).encode();
        let beyond = (SLOT >> 16) as u8;
        for (at, byte) in [(0, 0), (0, 4), (1, 1), (3, 255), (7, 1), (6, beyond)] {
            let mut head = head;
            head[at] = byte;
            assert_eq!(Frame::decode(&head), None, "{byte} at {at}");
        }
        let mut last = Frame::last(Kind::Left).encode();
        last[4] = 1;
        assert_eq!(Frame::decode(&last), None);
        assert_eq!(Frame::decode(&[0; HEAD]), None);
        assert_eq!(Frame::decode(&[0xff; HEAD]), None);
    }
}
