//! Folders that cannot be written: kolo needs none, unless it is told to write its record there.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use kolo::{Error, Kind, Result};

use crate::job::{END, Fate, Job};

/// Where programs put what they share, and what they need for a while.
const FOLDERS: [&str; 2] = ["/dev/shm", "/tmp"];

/// Covers these folders, for this thread and those that it starts, with ones that are `read-only`, or `full`.
pub(crate) fn cover(how: &str) -> Result<()> {
    let cannot =
        |what: &str| Error::new(Kind::Usage, format!("skipped: {what}: {}", std::io::Error::last_os_error()));
    let text = |text: &str| CString::new(text).expect("no zero in it");
    let (tmpfs, size) = (text("tmpfs"), text("size=64k"));
    // SAFETY: it takes a number.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(cannot("no mount namespace can be had"));
    }
    let root = text("/");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: names that end with a zero, and nothing where nothing is looked at.
    if unsafe { libc::mount(tmpfs.as_ptr(), root.as_ptr(), std::ptr::null(), private, std::ptr::null()) } != 0
    {
        return Err(cannot("mounts cannot be private"));
    }
    for folder in FOLDERS {
        let flags = if how == "read-only" { libc::MS_RDONLY } else { 0 };
        let at = text(folder);
        // SAFETY: names that end with a zero.
        if unsafe { libc::mount(tmpfs.as_ptr(), at.as_ptr(), tmpfs.as_ptr(), flags, size.as_ptr().cast()) }
            != 0
        {
            return Err(cannot("no folder can be mounted"));
        }
        if how != "read-only" {
            let filled = fs::write(Path::new(folder).join("filler"), [1; 1 << 20]);
            assert!(filled.is_err(), "{folder} is not full");
        }
    }
    Ok(())
}

/// How many files are in these folders that were not put there beforehand.
pub(crate) fn strays() -> usize {
    let names = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).expect("it is a folder"));
    names.filter(|entry| entry.as_ref().expect("it can be listed").file_name() != "filler").count()
}

fn run(how: &str, environment: &[(&str, &str)]) -> Option<Vec<Fate>> {
    let trouble = format!("start folders {how}");
    let fates = Job { transport: "shm", deadline: "60", who: "all", trouble: &trouble, environment }.run();
    println!("{how}: {:?}", fates[1].told());
    match fates.iter().find(|fate| fate.told().contains("skipped: ")) {
        None => Some(fates),
        Some(fate) => {
            eprintln!("{}", fate.told());
            None
        }
    }
}

#[test]
fn nobody_misses_them() {
    for how in ["read-only", "full"] {
        let Some(fates) = run(how, &[]) else { return };
        assert!(fates.iter().all(|fate| fate.is_well() && fate.printed.is_empty()), "{how}: {fates:#?}");
    }
}

#[test]
fn a_record_that_cannot_be_written_is_said_and_leaves_nothing() {
    for (how, why) in [("read-only", "Read-only file system"), ("full", "No space left on device")] {
        let Some(fates) = run(how, &[("KOLO_RECORD", "/tmp"), (END, "apart")]) else { return };
        for fate in &fates {
            let told = fate.told();
            assert!(told.starts_with("Mismatch ") || told.starts_with("PeerLost "), "{fates:#?}");
            assert!(told.contains(&format!("; not recorded, KOLO_RECORD: {why}")), "{fates:#?}");
            assert!(fate.printed.is_empty(), "{fates:#?}");
        }
    }
}
