//! Probes of what a peer says before it shares memory; see [`crate::parsers`].

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::hello::{HELLO, receive_descriptors};
use crate::health::Deadline;

fn greeting() -> Vec<u8> {
    HELLO.map(u64::to_ne_bytes).concat()
}

/// A greeting without descriptors.
pub(crate) fn hello(bytes: &[u8]) {
    let (mine, mut theirs) = UnixStream::pair().expect("two sockets are to be had");
    theirs.write_all(&bytes[..bytes.len().min(32 << 10)]).expect("a fresh socket takes that much");
    theirs.shutdown(Shutdown::Write).expect("an open socket shuts");
    let heard = receive_descriptors(&mine, Deadline::after(Some(Duration::from_secs(5))));
    assert_eq!(heard.map(|fds| fds.len()).ok(), bytes.starts_with(&greeting()).then_some(0));
}

pub(crate) fn hellos() -> Vec<(&'static str, Vec<u8>)> {
    let mut other = greeting();
    other[8] ^= 1;
    vec![
        ("greeting", greeting()),
        ("more", [greeting(), vec![1, 2, 3]].concat()),
        ("another-layout", other),
        ("cut", greeting()[..23].to_vec()),
    ]
}
