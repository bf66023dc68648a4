//! Probes of what a peer sends over libfabric; see [`crate::parsers`].

use super::head::{HEAD, Head, Kind};
use super::{EAGER, SLOT};
use crate::transport::Tag;

/// A head, and what stands behind it.
pub(crate) fn head(bytes: &[u8]) {
    let Some((head, behind)) = bytes.split_first_chunk::<HEAD>() else { return };
    if let Some(read) = Head::decode(head, bytes.len()) {
        assert_eq!(read.encode(), *head);
        assert_eq!(read.behind(), behind.len());
        assert!(read.len <= SLOT);
    }
}

pub(crate) fn heads() -> Vec<(&'static str, Vec<u8>)> {
    let tag = Tag { digest: 0x0123_4567_89ab_cdef, body: [1, 2, 3, u64::MAX] };
    let of = |kind, len, behind: usize| {
        [&Head { kind, len, released: 5, tag }.encode()[..], &vec![1; behind]].concat()
    };
    vec![
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
