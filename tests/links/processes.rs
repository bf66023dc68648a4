//! Links whose ends are in two processes: this test program runs itself as the other one.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::conformance::{MANY, exchange};
use crate::end::{End, tag};
use crate::kinds::Joins;

/// Tells a child which kind of link to make and what to do with it.
pub(crate) const ROLE: &str = "KOLO_TEST_LINKS_ROLE";

/// Kills the other process when a test ends, however it ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This process' end, and the process that has the other.
fn with_child<K: Joins>(kind: &str, role: &str) -> (End, Other) {
    let (mine, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "between_processes::child", "--ignored", "--nocapture", "--quiet"])
        .env(ROLE, format!("{kind} {role}"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Other(child);
    (K::join(mine, true), child)
}

/// What the other process does.
pub(crate) fn child<K: Joins>(role: &str) {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let end = K::join(stream, false);
    match role {
        "exchange" => exchange(&end, 1, MANY),
        "die" => {
            assert!(end.try_send(b"last words", &tag(1)).unwrap());
            end.wait(|end| Ok(end.link.settled()?.then_some(()))).unwrap();
            loop {
                std::thread::park();
            }
        }
        _ => panic!("no role {role}"),
    }
}

pub(crate) fn random_messages<K: Joins>(kind: &str) {
    let (end, mut other) = with_child::<K>(kind, "exchange");
    exchange(&end, 0, MANY);
    assert!(other.0.wait().unwrap().success());
}

pub(crate) fn killed_peer<K: Joins>(kind: &str) {
    let (end, mut other) = with_child::<K>(kind, "die");
    end.wait(|end| Ok(end.link.peek()?.map(|_| ()))).unwrap();
    end.link.alive().unwrap();
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    let (taken, error) = end.wait_for_loss();
    assert_eq!(taken.iter().map(|taken| &taken.bytes[..]).collect::<Vec<_>>(), [b"last words"]);
    assert_eq!(error.kind(), kolo::Kind::PeerLost);
}
