//! The house stays as drawn: floors, unsafe, statics, the environment, sizes. Each rule says what it is
//! about, and each is shown to be able to fail.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path from the root, with `/`, and its text.
struct File {
    path: String,
    text: String,
}

/// Files above this many lines are looked at twice.
const LONG: usize = 600;

/// What a file below one of `folders` must not name, and why.
struct Ban {
    folders: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        folders: &["src/plan/", "src/algorithm/"],
        words: &["std::net", "std::fs", "std::thread", "std::time", "std::env", "unsafe"],
        why: "plans are pure: no input, output, clock, thread or unsafe",
    },
    Ban {
        folders: &["src/plan/", "src/algorithm/"],
        words: &[
            "crate::sys",
            "crate::kernel",
            "crate::memory",
            "crate::bootstrap",
            "crate::health",
            "crate::transport",
            "crate::engine",
            "crate::communicator",
            "crate::config",
        ],
        why: "the pure column sees nothing of the other one, nor of what stands above",
    },
    Ban { folders: &["src/plan/"], words: &["crate::algorithm"], why: "plans stand below algorithms" },
    Ban {
        folders: &[
            "src/transport/",
            "src/kernel/",
            "src/memory/",
            "src/bootstrap/",
            "src/health/",
            "src/sys/",
        ],
        words: &["crate::plan", "crate::algorithm", "crate::engine", "crate::communicator"],
        why: "a transport knows no collective, and nothing below knows what stands above",
    },
    Ban {
        folders: &["src/kernel/"],
        words: &["crate::transport", "crate::bootstrap"],
        why: "a kernel knows no transport",
    },
    Ban {
        folders: &["src/sys/"],
        words: &["crate::kernel", "crate::memory", "crate::transport", "crate::bootstrap"],
        why: "sys stands on the ground floor",
    },
    Ban {
        folders: &["src/engine/"],
        words: &["crate::communicator", "transport::local", "transport::shm", "transport::tcp", "crate::sys"],
        why: "the engine knows no concrete transport and nothing above it",
    },
    Ban {
        folders: &["src/engine/", "src/communicator/"],
        words: &["\"shm\"", "\"tcp\"", "\"local\"", ".name() =="],
        why: "nothing above the transports branches on a transport's name",
    },
    Ban {
        folders: &["src/", "ffi/src/", "tools/src/", "tools/trainer/src/"],
        words: &["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"],
        why: "nothing unfinished stands in the house",
    },
];

/// Where a ban does not hold, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    // (file, word, reason)
    ("src/communicator/choice.rs", ".name() ==", "it compares algorithms' names"),
    ("src/communicator/context.rs", "\"local\"", "a caller of Communicator::local names it"),
];

/// Where unsafe may stand.
const UNSAFE_FLOORS: &[&str] =
    &["src/sys/", "src/memory/", "src/kernel/", "src/transport/", "ffi/", "benches/"];

/// Files that are long for a reason.
const LONG_FOR_A_REASON: &[(&str, &str)] = &[];

/// The part of a line that is code.
fn code(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or(line) }
}

fn banned(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for ban in BANS.iter().filter(|ban| ban.folders.iter().any(|folder| file.path.starts_with(folder))) {
        for (number, line) in file.text.lines().enumerate() {
            for word in ban.words.iter().filter(|word| contains(code(line), word)) {
                let excused = |(path, what, _): &&(&str, &str, &str)| *path == file.path && what == word;
                if !EXCEPTIONS.iter().any(|exception| excused(&exception)) {
                    found.push(format!("{}:{}: `{word}`: {}", file.path, number + 1, ban.why));
                }
            }
        }
    }
    found
}

/// Whether the line names the word, and not a longer one.
fn contains(line: &str, word: &str) -> bool {
    let letter = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    line.match_indices(word).any(|(at, _)| {
        let bytes = line.as_bytes();
        let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
        let begins = !letter(Some(&first)) || at == 0 || !letter(bytes.get(at - 1));
        let ends = !letter(Some(&last)) || !letter(bytes.get(at + word.len()));
        begins && ends
    })
}

fn unsafe_out_of_place(file: &File) -> Vec<String> {
    if !file.path.ends_with(".rs") || file.path.starts_with("tests/") {
        return Vec::new();
    }
    let allowed = UNSAFE_FLOORS.iter().any(|floor| file.path.starts_with(floor));
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let text = code(line);
        let block = contains(text, "unsafe {") || contains(text, "unsafe impl");
        if contains(text, "unsafe") && !allowed {
            found.push(format!("{}:{}: unsafe stands in {UNSAFE_FLOORS:?} alone", file.path, number + 1));
        } else if block && !explained(&lines, number) {
            found.push(format!(
                "{}:{}: an unsafe block without its SAFETY line above",
                file.path,
                number + 1
            ));
        }
    }
    found
}

/// Whether a SAFETY comment stands above the statement that this line belongs to.
fn explained(lines: &[&str], number: usize) -> bool {
    let above = lines[..number].iter().rev().take(12);
    lines[number].contains("SAFETY") || above.clone().any(|line| line.contains("SAFETY:"))
}

fn hidden_state(file: &File) -> Vec<String> {
    let cells = ["Mutex", "RwLock", "Atomic", "OnceLock", "OnceCell", "LazyLock", "RefCell", "Cell<"];
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let text = code(line);
        let place = format!("{}:{}", file.path, number + 1);
        let is_static =
            text.starts_with("static ") || text.starts_with("pub static ") || text.contains(") static ");
        let library = file.path.starts_with("src/") || file.path.starts_with("ffi/src/");
        let error_slot = file.path == "ffi/src/status.rs" && text.starts_with("static LAST_ERROR");
        if is_static
            && library
            && !error_slot
            && (text.contains("static mut") || cells.iter().any(|cell| text.contains(cell)))
        {
            found.push(format!("{place}: no state in statics: a Context owns it"));
        }
        if text.contains("thread_local!") && !file.path.starts_with("ffi/") {
            found.push(format!("{place}: no thread-local state, but for the error slot in ffi"));
        }
        let reads = ["env::var", "env::vars", "getenv"].iter().any(|word| text.contains(word));
        if reads && library && file.path != "src/config.rs" {
            found.push(format!("{place}: only src/config.rs reads the environment"));
        }
        let foreign = text.contains("extern \"C\"");
        if foreign && !(file.path.starts_with("ffi/") || file.path.starts_with("src/sys/")) {
            found.push(format!("{place}: foreign functions stand in src/sys and ffi alone"));
        }
    }
    found
}

fn shape(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let lines = file.text.lines().count();
    if lines > LONG && !LONG_FOR_A_REASON.iter().any(|(path, _)| *path == file.path) {
        found.push(format!(
            "{}: {lines} lines: does it still have one job? Split it, or list it here",
            file.path
        ));
    }
    if !file.text.starts_with("//!") && !file.text.starts_with("#![") {
        found.push(format!("{}: begins without a line that says what it is for", file.path));
    }
    found
}

fn all_rules(file: &File) -> Vec<String> {
    let rules = [banned, unsafe_out_of_place, hidden_state, shape];
    rules.iter().flat_map(|rule| rule(file)).collect()
}

fn sources(root: &Path) -> Vec<File> {
    let mut folders: Vec<PathBuf> =
        ["src", "ffi", "tools", "benches", "tests"].iter().map(|folder| root.join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let short = path.strip_prefix(root).expect("below the root").display().to_string();
                files.push(File { path: short, text: fs::read_to_string(&path).expect("sources are text") });
            }
        }
    }
    files
}

#[test]
fn the_house_stays_as_drawn() {
    let files = sources(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(files.len() > 20, "the sources were not found");
    let house = files.iter().filter(|file| file.path != "tests/tidy.rs");
    let found: Vec<String> = house.flat_map(all_rules).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    let broken = [
        ("src/plan/x.rs", "//! x\nuse std::time::Instant;", "plans are pure"),
        ("src/algorithm/x.rs", "//! x\nuse crate::transport::Link;", "pure column"),
        ("src/plan/x.rs", "//! x\nuse crate::algorithm::ALL;", "below algorithms"),
        ("src/transport/x.rs", "//! x\nuse crate::plan::Plan;", "knows no collective"),
        ("src/kernel/x.rs", "//! x\nuse crate::transport::Link;", "a kernel knows no transport"),
        ("src/sys/x.rs", "//! x\nuse crate::memory::View;", "ground floor"),
        ("src/engine/x.rs", "//! x\nuse crate::transport::shm::Shm;", "no concrete transport"),
        ("src/communicator/x.rs", "//! x\nif name == \"shm\" {}", "branches on a transport's name"),
        ("src/x.rs", "//! x\nfn f() { todo!() }", "unfinished"),
        ("src/engine/x.rs", "//! x\nlet x = unsafe { y() };", "alone"),
        ("src/memory/x.rs", "//! x\nlet x = unsafe { y() };", "without its SAFETY"),
        ("src/x.rs", "//! x\nstatic COUNT: AtomicU32 = AtomicU32::new(0);", "state in statics"),
        ("src/x.rs", "//! x\nthread_local! {}", "thread-local"),
        ("src/x.rs", "//! x\nlet v = std::env::var(\"X\");", "reads the environment"),
        ("tools/src/x.rs", "//! x\nextern \"C\" {}", "foreign functions"),
        ("src/x.rs", "fn f() {}", "what it is for"),
    ];
    for (path, text, expected) in broken {
        let file = File { path: path.into(), text: text.into() };
        let found = all_rules(&file).join("\n");
        assert!(found.contains(expected), "{path}: {text}: expected `{expected}`, found `{found}`");
    }
    let long = File { path: "src/x.rs".into(), text: "//! x\n".repeat(LONG + 1) };
    assert!(shape(&long)[0].contains("one job"));
    let clean = "//! x\n// unsafe in words\nlet unsafely = 1;";
    assert_eq!(all_rules(&File { path: "src/engine/x.rs".into(), text: clean.into() }), [""; 0]);
}
