//! Probes of what a peer sends over libfabric; see [`crate::parsers`].

use super::head::{BRIEF, FEW, HEAD, Head, Kind};
use super::{EAGER, SLOT};
use crate::transport::Tag;

/// The tag of the message before.
const LAST: [u64; 4] = [1, 2, 3, u64::MAX];

/// A head, brief or not, and what stands behind it.
pub(crate) fn head(bytes: &[u8]) {
    if let (Some((head, behind)), ..HEAD) = (bytes.split_first_chunk::<BRIEF>(), bytes.len()) {
        if let Some(read) = Head::decode_brief(head, bytes.len(), &LAST) {
            assert!(read.behind() == behind.len() && read.len <= FEW);
            // There are several ways to say that nothing has changed.
            let again = read.encode_brief(&LAST).expect("it is brief");
            assert_eq!(Head::decode_brief(&again, bytes.len(), &LAST), Some(read));
        }
        return;
    }
    let Some((head, behind)) = bytes.split_first_chunk::<HEAD>() else { return };
    if let Some(read) = Head::decode(head, bytes.len()) {
        assert_eq!(read.encode(), *head);
        assert_eq!(read.behind(), behind.len());
        assert!(read.len <= SLOT);
    }
}

pub(crate) fn heads() -> Vec<(&'static str, Vec<u8>)> {
    let tag = Tag { digest: 0x0123_4567_89ab_cdef, body: LAST };
    let of = |kind, len, behind: usize| {
        [&Head { kind, len, released: 5, tag }.encode()[..], &vec![1; behind]].concat()
    };
    let brief = |body, behind: usize| {
        let head = Head { kind: Kind::Brief, len: 8, released: 5, tag: Tag { body, ..tag } };
        [&head.encode_brief(&LAST).expect("it is brief")[..], &vec![1; behind]].concat()
    };
    vec![
        ("brief", brief([1, 3, 3, u64::MAX], 8)),
        ("brief-same", brief(LAST, 8)),
        ("brief-cut", brief(LAST, 7)),
        ("short-empty", of(Kind::Short, 0, 0)),
        ("short", of(Kind::Short, 8, 8)),
        ("short-cut", of(Kind::Short, 8, 7)),
        ("short-too-long", of(Kind::Short, EAGER + 1, 0)),
        ("long", of(Kind::Long, SLOT, 0)),
        ("lent", of(Kind::Lent, EAGER + 1, 0)),
        ("pieced", of(Kind::Pieced, EAGER, 0)),
        ("lent-too-long", of(Kind::Lent, SLOT + 1, 0)),
        ("news", Head::control(Kind::News, 7).encode().to_vec()),
        ("greeting", Head::control(Kind::Greeting, 0).encode().to_vec()),
        ("farewell", Head::control(Kind::Farewell, 1 << 33).encode().to_vec()),
        ("zeros", vec![0; HEAD]),
    ]
}
