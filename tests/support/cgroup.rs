//! Cgroups in which memory is soon spent.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one may take: a rank takes less, if it does not want more.
pub(crate) const LIMIT: u64 = 96 << 20;

/// A cgroup with little memory, which is removed.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    /// Nothing where none can be made, which is said.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let name = format!("kolo-test-{}-{name}", std::process::id());
        let mut why = String::new();
        for (place, limits) in [
            ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]),
            ("/sys/fs/cgroup", ["memory.max", "memory.swap.max"]),
        ] {
            // Version 2 gives a group memory where the one above says so.
            let _ = fs::write(Path::new(place).join("cgroup.subtree_control"), "+memory");
            let cgroup = Self(Path::new(place).join(&name));
            let made = fs::create_dir(&cgroup.0);
            let made = made.and_then(|()| fs::write(cgroup.0.join(limits[0]), LIMIT.to_string()));
            // Not everywhere is there any swap to forbid.
            let swap = if limits[1] == "memory.swap.max" { 0 } else { LIMIT };
            let _ = fs::write(cgroup.0.join(limits[1]), swap.to_string());
            match made {
                Ok(()) => return Some(cgroup),
                Err(cause) => why = format!("{place}: {cause}"),
            }
        }
        eprintln!("skipped: no cgroup with a limit of memory can be made: {why}");
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Who has just ended may still be counted.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.0.display());
    }
}
