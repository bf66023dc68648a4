//! What a call is, in 32 bytes that travel with its messages.
//!
//! Ranks must call alike. The digest of a call's signature is compared on every message, in release
//! builds too; on a difference both signatures are decoded and printed.

use std::fmt;

use crate::CHECKED;
use crate::dtype::Dtype;
use crate::error::{Error, Kind};
use crate::op::OpKind;
use crate::plan::CollectiveKind;
use crate::transport::Tag;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routine {
    /// A collective.
    Collective(CollectiveKind),
    /// A message between two ranks.
    PointToPoint,
}

impl Routine {
    const POINT_TO_POINT: u8 = u8::MAX;

    /// A number of its own.
    #[inline]
    pub fn code(self) -> u8 {
        match self {
            Self::Collective(kind) => kind as u8,
            Self::PointToPoint => Self::POINT_TO_POINT,
        }
    }

    fn decode(code: u8) -> Option<Self> {
        if code == Self::POINT_TO_POINT {
            return Some(Self::PointToPoint);
        }
        CollectiveKind::ALL.into_iter().find(|kind| *kind as u8 == code).map(Self::Collective)
    }
}

impl fmt::Display for Routine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collective(kind) => kind.fmt(f),
            Self::PointToPoint => f.write_str("send/recv"),
        }
    }
}

/// What ranks must agree on when they call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The communicator, as all its ranks number it.
    pub communicator: u64,
    /// The how many-th call on it; 0 for messages between two ranks, which others do not count.
    pub sequence: u64,
    /// Elements of the whole vector; of the message, where each rank knows only its own edges.
    pub count: u64,
    /// What is called.
    pub routine: Routine,
    /// The element type.
    pub dtype: Dtype,
    /// The operator, where there is one.
    pub op: Option<OpKind>,
    /// The algorithm, by its place in the list of all.
    pub algorithm: u8,
    /// The root, where there is one.
    pub root: u32,
    /// A hash of the vector of counts, where ranks' counts differ.
    pub counts: u64,
    /// The digest of the communicator's call before; 0 for messages between two ranks. It chains all calls: a rank that has
    /// once made another one than the others differs in every later message, whoever reads it first.
    pub past: u64,
}

const NO_OP: u8 = u8::MAX;

/// A signature's tag, to be numbered: what calls that are alike have in common.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Of all but the number.
    hash: u64,
    tag: Tag,
}

impl Stamp {
    /// Makes it that of the call of that number, after those that the digest `past` stands for.
    #[inline]
    pub fn number(&mut self, sequence: u64, past: u64) {
        if !CHECKED {
            return;
        }
        self.tag.digest = mix(self.hash, sequence ^ past);
        self.tag.body[1] = sequence;
    }

    /// What travels with the call's messages.
    #[inline]
    pub fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl Signature {
    /// What travels with this call's messages.
    pub fn tag(&self) -> Tag {
        self.stamp().tag
    }

    /// The same, to be made that of other calls that differ in their number only.
    pub fn stamp(&self) -> Stamp {
        let codes =
            [self.routine.code(), self.dtype as u8, self.op.map_or(NO_OP, |op| op as u8), self.algorithm];
        let small = u64::from(u32::from_le_bytes(codes)) << 32 | u64::from(self.root);
        let hash =
            [self.communicator, self.count, small].iter().fold(self.counts, |hash, &word| mix(hash, word));
        let body = [self.communicator, self.sequence, self.count, small];
        Stamp { hash, tag: Tag { digest: mix(hash, self.sequence ^ self.past), body } }
    }

    /// This call and a peer's, which are not alike.
    pub fn mismatch(&self, theirs: [u64; 4], peer: usize) -> Error {
        Self::clash([self.tag().body, theirs], peer)
    }

    /// A call of this rank's and one of a peer's, which are not alike.
    pub fn clash(calls: [[u64; 4]; 2], peer: usize) -> Error {
        let text = Self::contrast(["this rank", "the other"], calls);
        Error::new(Kind::Mismatch, text).with(peer).between(calls)
    }

    /// Says how the calls of two ranks disagree.
    pub fn contrast([one, other]: [&str; 2], calls: [[u64; 4]; 2]) -> String {
        let [mine, theirs] = calls.map(|call| match Self::decode(call) {
            Some(signature) => signature.to_string(),
            None => "something that this version does not know".into(),
        });
        if calls[0] == calls[1] {
            return format!(
                "{mine} was called on both sides, but the counts per rank differ, in it or in an earlier call; compare them"
            );
        }
        format!("{one} called {mine}, {other} {theirs}; all ranks must make the same calls in the same order")
    }

    /// Whether a message with this body cannot come from a rank that makes the same calls: it belongs to
    /// another call with this one's number, or to an earlier one that this rank is done with.
    pub fn contradicts(&self, theirs: [u64; 4], edges: bool) -> bool {
        let [communicator, sequence, count, codes] = self.tag().body;
        let alike = theirs[3] == codes && (edges || theirs[2] == count);
        theirs[0] == communicator
            && theirs[1] != 0
            && (theirs[1] < sequence || theirs[1] == sequence && !alike)
    }

    /// What travelled with a call's messages, taken apart; nothing where this version knows no such call.
    pub fn decode([communicator, sequence, count, small]: [u64; 4]) -> Option<Self> {
        let [routine, dtype, op, algorithm] = ((small >> 32) as u32).to_le_bytes();
        Some(Self {
            communicator,
            sequence,
            count,
            routine: Routine::decode(routine)?,
            dtype: Dtype::ALL.into_iter().find(|known| *known as u8 == dtype)?,
            op: match op {
                NO_OP => None,
                code => Some(OpKind::ALL.into_iter().find(|known| *known as u8 == code)?),
            },
            algorithm,
            root: small as u32,
            counts: 0,
            past: 0,
        })
    }

    /// A call by what of it travels, such as `all_reduce #17 of communicator 0000002a`.
    pub fn place(body: [u64; 4]) -> String {
        let call = Self::decode(body).map_or_else(|| format!("call #{}", body[1]), |call| call.short());
        format!("{call} of communicator {:08x}", body[0] as u32)
    }

    /// The call by its short name, such as `all_reduce #17`.
    pub fn short(&self) -> String {
        match self.routine {
            Routine::PointToPoint => self.routine.to_string(),
            Routine::Collective(_) => format!("{} #{}", self.routine, self.sequence),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())?;
        write!(f, "({} x {}", self.count, self.dtype)?;
        if let Some(op) = self.op {
            write!(f, ", {op}")?;
        }
        if let Routine::Collective(kind) = self.routine {
            if kind.rooted() {
                write!(f, ", root {}", self.root)?;
            }
            let algorithm = crate::algorithm::ALL.get(usize::from(self.algorithm));
            write!(f, ", {}", algorithm.map_or("unknown algorithm", |algorithm| algorithm.name()))?;
        }
        write!(f, ", communicator {:08x})", self.communicator as u32)
    }
}

/// Mixes a word into a hash: the two halves of a product (the step of Wang Yi's wyhash).
pub fn mix(hash: u64, word: u64) -> u64 {
    const ODD: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];
    let product = u128::from(hash ^ ODD[0]) * u128::from(word ^ ODD[1]);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Signature {
        Signature {
            communicator: 7,
            sequence: 17,
            count: 1000,
            routine: Routine::Collective(CollectiveKind::AllReduce),
            dtype: Dtype::F32,
            op: Some(OpKind::Sum),
            algorithm: 0,
            root: 0,
            counts: 0,
            past: 0,
        }
    }

    #[test]
    fn every_field_changes_the_digest() {
        let a = sample();
        let others = [
            Signature { communicator: 8, ..a },
            Signature { sequence: 18, ..a },
            Signature { count: 1001, ..a },
            Signature { routine: Routine::PointToPoint, ..a },
            Signature { dtype: Dtype::F64, ..a },
            Signature { op: None, ..a },
            Signature { algorithm: 1, ..a },
            Signature { root: 1, ..a },
            Signature { counts: 1, ..a },
            Signature { past: 1, ..a },
        ];
        let mut digests: Vec<u64> = others.iter().map(|other| other.tag().digest).collect();
        digests.push(a.tag().digest);
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn only_what_no_agreeing_rank_sends_contradicts() {
        let a = sample();
        let body = |signature: Signature| signature.tag().body;
        assert!(a.contradicts(body(Signature { count: 999, ..a }), false));
        assert!(a.contradicts(body(Signature { root: 3, ..a }), true));
        assert!(
            a.contradicts(body(Signature { sequence: 16, ..a }), false),
            "left over from an earlier call"
        );
        assert!(!a.contradicts(body(a), false));
        assert!(!a.contradicts(body(Signature { count: 999, ..a }), true), "an edge's count is its own");
        assert!(!a.contradicts(body(Signature { sequence: 18, count: 1, ..a }), false), "it is ahead");
        assert!(!a.contradicts(body(Signature { communicator: 8, count: 1, ..a }), false));
        assert!(!a.contradicts(body(Signature { sequence: 0, count: 1, ..a }), false), "between two ranks");
    }

    #[test]
    fn a_contrast_shows_both_sides() {
        let other = Signature { count: 999, dtype: Dtype::Bf16, ..sample() };
        let text = sample().mismatch(other.tag().body, 3).to_string();
        assert!(text.contains("1000 x f32") && text.contains("999 x bf16"), "{text}");
        assert_eq!(
            sample().mismatch(other.tag().body, 3).calls(),
            Some([sample(), other].map(|it| it.tag().body))
        );
        assert_eq!(Signature::decode(other.tag().body), Some(other));
        assert!(sample().mismatch([u64::MAX; 4], 3).to_string().contains("does not know"));
        assert!(sample().mismatch(sample().tag().body, 3).to_string().contains("counts per rank differ"));
    }
}
