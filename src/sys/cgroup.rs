//! How many processes of a cgroup the kernel has killed for want of memory.
//!
//! Both versions of cgroups count that in a line `oom_kill N`: of `memory.events` (2), or of `memory.oom_control` (1). It is
//! the cgroup of the process that was killed that counts, whether its own limit was reached, one above it, or the machine's.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

/// Where version 2 is mounted, and below which version 1's memory controller is.
const MOUNT: &str = "/sys/fs/cgroup/";
/// The longest name of a file that is remembered.
const LONGEST: usize = 512;

/// Where a process' cgroup counts, and what it had counted at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    file: String,
    /// Tells the file apart from another one of this name, in a container or later.
    inode: u64,
    killed: u64,
}

/// A cgroup some of whose processes were killed for want of memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Killed<'a> {
    /// Its folder.
    pub cgroup: &'a str,
    /// Whether processes live there that were not killed: so that it may have been another one that was.
    pub shared: bool,
}

impl Cgroup {
    /// That of this process, where the kernel tells.
    pub fn own() -> Option<Self> {
        let list = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        candidates(&list, MOUNT).into_iter().find_map(Self::look)
    }

    fn look(file: String) -> Option<Self> {
        let (inode, killed) = read(&file)?;
        Self::new(file, inode, killed)
    }

    /// One that a peer told of; nothing where it cannot be one.
    pub(crate) fn new(file: String, inode: u64, killed: u64) -> Option<Self> {
        let inside = file.starts_with(MOUNT) && !file.split('/').any(|name| name == "..");
        (inside && file.len() <= LONGEST).then_some(Self { file, inode, killed })
    }

    /// What [`Cgroup::new`] takes.
    pub(crate) fn parts(&self) -> (&str, u64, u64) {
        (&self.file, self.inode, self.killed)
    }

    /// Whether it has counted more since; for a process of it that is dead.
    pub fn killed_since(&self, dead: u32) -> Option<Killed<'_>> {
        let (inode, killed) = read(&self.file)?;
        if inode != self.inode || killed <= self.killed {
            return None;
        }
        let cgroup = self.file.rsplit_once('/')?.0;
        let living = std::fs::read_to_string(format!("{cgroup}/cgroup.procs")).ok();
        let lives = |text: &str| text.split_whitespace().any(|process| process != dead.to_string());
        Some(Killed { cgroup, shared: living.is_none_or(|text| lives(&text)) })
    }
}

/// The files that may count for a process with such a `/proc/PID/cgroup`, the most telling first. A container may see only
/// its own cgroup, in the place of all.
fn candidates(list: &str, mount: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in list.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else { continue };
        let (place, file) = match controllers {
            "" => (mount.to_owned(), "memory.events"),
            list if list.split(',').any(|name| name == "memory") => {
                (format!("{mount}memory/"), "memory.oom_control")
            }
            _ => continue,
        };
        match path.trim_matches('/') {
            "" => files.push(format!("{place}{file}")),
            path => files.extend([format!("{place}{path}/{file}"), format!("{place}{file}")]),
        }
    }
    files
}

/// Which file it is, and what it counts.
fn read(file: &str) -> Option<(u64, u64)> {
    let mut opened = File::open(file).ok()?;
    let mut text = String::new();
    opened.read_to_string(&mut text).ok()?;
    Some((opened.metadata().ok()?.ino(), count(&text)?))
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn both_versions_count_in_a_line_of_that_name() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(count(events), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
        assert_eq!(count("oom_kill -1\n"), None);
    }

    #[test]
    fn the_file_is_found_by_what_the_kernel_lists() {
        let found = |list| candidates(list, "/c/");
        assert_eq!(found("0::/a/b\n"), ["/c/a/b/memory.events", "/c/memory.events"]);
        assert_eq!(found("0::/\n"), ["/c/memory.events"]);
        let one = "9:name=systemd:/x\n4:cpu,memory:/a:b\n1:cpu:/y\n";
        assert_eq!(found(one), ["/c/memory/a:b/memory.oom_control", "/c/memory/memory.oom_control"]);
        assert!(found("nonsense").is_empty() && found("").is_empty());
    }

    #[test]
    fn a_peer_names_no_file_but_a_cgroups() {
        let named = |file: &str| Cgroup::new(file.to_owned(), 1, 0).is_some();
        assert!(named("/sys/fs/cgroup/a/memory.events"));
        assert!(!named("/etc/passwd") && !named("/sys/fs/cgroup/../../etc/passwd") && !named(""));
        assert!(!named(&format!("/sys/fs/cgroup/{}/memory.events", "a".repeat(LONGEST))));
    }

    /// A folder that looks like a cgroup, and is taken away.
    struct Folder(PathBuf);

    impl Folder {
        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn cgroup(&self) -> Cgroup {
            let file = self.0.join("memory.events").display().to_string();
            let (inode, killed) = read(&file).unwrap();
            Cgroup { file, inode, killed }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_what_was_counted_since_says_something_and_others_make_it_doubtful() {
        let folder = Folder(std::env::temp_dir().join(format!("kolo-cgroup-{}", std::process::id())));
        fs::create_dir(&folder.0).unwrap();
        folder.write("memory.events", "oom 1\noom_kill 1\n");
        folder.write("cgroup.procs", "4711\n");
        let cgroup = folder.cgroup();
        assert_eq!(cgroup.killed_since(4711), None, "that was before");
        folder.write("memory.events", "oom 2\noom_kill 2\n");
        let place = folder.0.display().to_string();
        let killed = |shared| Some(Killed { cgroup: &place, shared });
        assert_eq!(cgroup.killed_since(4711), killed(false));
        folder.write("cgroup.procs", "4711\n4712\n");
        assert_eq!(cgroup.killed_since(4711), killed(true));
        let another = Cgroup { inode: cgroup.inode + 1, ..cgroup.clone() };
        assert_eq!(another.killed_since(4711), None, "another cgroup of this name");
        fs::remove_file(folder.0.join("cgroup.procs")).unwrap();
        assert_eq!(cgroup.killed_since(4711), killed(true), "nobody knows");
        fs::remove_file(folder.0.join("memory.events")).unwrap();
        assert_eq!(cgroup.killed_since(4711), None);
    }
}
