//! kolo.h is what cbindgen makes of the sources.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_sources() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut made = Vec::new();
    cbindgen::generate(home).expect("cbindgen reads the sources").write(&mut made);
    let made = without_safety(&String::from_utf8(made).expect("a header is text"));
    let path = home.join("kolo.h");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept != made {
        if std::env::var_os("CI").is_none() {
            std::fs::write(&path, &made).expect("kolo.h can be written");
        }
        panic!("ffi/kolo.h was not that of ffi/src; this test has rewritten it (not in CI): commit it");
    }
}

/// Without the sections that Rust asks of unsafe functions: the head of the file says the same once.
fn without_safety(header: &str) -> String {
    let mut within = false;
    let mut kept = String::new();
    for line in header.lines() {
        within = line == "// # Safety" || within && line.starts_with("//");
        if within {
            // The empty comment line above the section goes with it.
            kept.truncate(kept.strip_suffix("//\n").unwrap_or(&kept).len());
        } else {
            kept.extend([line, "\n"]);
        }
    }
    kept
}
