//! What the program's tests share: running `kolo`, and looking at processes.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `kolo` with these arguments, with nothing of a job around the tests in its environment.
pub(crate) fn kolo<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(arguments: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kolo"));
    command.args(arguments).stdin(Stdio::null());
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("KOLO_") {
            command.env_remove(key);
        }
    }
    command
}

/// `kolo run -n RANKS -- sh -c SCRIPT`
pub(crate) fn run_script(ranks: usize, script: &str) -> Command {
    kolo(["run", "-n", &ranks.to_string(), "--", "sh", "-c", script])
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("cannot start kolo");
    let text = |bytes| String::from_utf8(bytes).expect("output is not UTF-8");
    (status.code().expect("kolo was killed"), text(stdout), text(stderr))
}

/// Whether a process lives (a zombie that nobody reaps does not).
pub(crate) fn lives(pid: i32) -> bool {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Waits for something that must come to pass.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The numbers that ranks wrote into the files of a folder.
pub(crate) fn written_pids(folder: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for file in fs::read_dir(folder).expect("no such folder").flatten() {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        pids.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    pids
}

/// An empty folder of this test's own.
pub(crate) fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("cannot make a folder");
    folder
}
