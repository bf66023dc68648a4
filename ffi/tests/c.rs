//! The C example, compiled against what `ffi/install` installs, runs as four ranks.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RANKS: usize = 4;

/// Runs a command that must succeed; its standard output.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Whether a program is there. In CI everything must be.
fn offers(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    assert!(there || env::var_os("CI").is_none(), "in CI, {program} must be installed");
    if !there {
        eprintln!("skipped: no {program} on this machine");
    }
    there
}

/// Where the library is installed for these tests, and the program `kolo`.
fn installed() -> (PathBuf, PathBuf) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("installed");
    run(Command::new(home.join("install")).arg(&prefix));
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run(Command::new(cargo).current_dir(home).args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "kolo-tools",
    ]));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a folder in the target directory");
    (prefix, target.join("release/kolo"))
}

/// Compiles the example; `library` says which library it takes.
fn compile(prefix: &Path, name: &str, library: &[String]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/all_reduce.c");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-I"]).arg(prefix.join("include"));
    run(cc.arg(source).arg("-o").arg(&program).args(library));
    program
}

fn all_right(output: &str) {
    for rank in 0..RANKS {
        let line = format!("rank {rank} of {RANKS}: 0 of 1000 wrong");
        assert!(output.contains(&line), "no `{line}` in\n{output}");
    }
}

#[test]
fn the_example_runs_as_four_ranks() {
    if !offers("cc") {
        return;
    }
    let (prefix, kolo) = installed();
    let lib = prefix.join("lib").display().to_string();
    let pc = fs::read_to_string(prefix.join("lib/pkgconfig/kolo.pc")).unwrap();
    let private = pc.lines().find_map(|line| line.strip_prefix("Libs.private: ")).unwrap();
    let fixed: Vec<_> =
        [format!("{lib}/libkolo.a")].into_iter().chain(private.split(' ').map(String::from)).collect();
    let shared = [format!("-L{lib}"), "-lkolo".into(), format!("-Wl,-rpath,{lib}")];
    let ranks = RANKS.to_string();
    for program in [compile(&prefix, "static", &fixed), compile(&prefix, "shared", &shared)] {
        all_right(&run(Command::new(&kolo).args(["run", "-n", &ranks, "--"]).arg(&program)));
        if offers("valgrind") {
            let valgrind = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full"];
            let kinds = ["--show-leak-kinds=all", "--errors-for-leak-kinds=definite,indirect,possible"];
            let mut command = Command::new(&kolo);
            all_right(&run(command
                .args(["run", "-n", &ranks, "--"])
                .args(valgrind)
                .args(kinds)
                .arg(&program)));
        }
    }
    exports_only_versioned_names(&prefix);
}

/// The shared library exports the header's functions, under the version's name, and nothing else.
fn exports_only_versioned_names(prefix: &Path) {
    if !offers("objdump") {
        return;
    }
    let header = fs::read_to_string(prefix.join("include/kolo.h")).unwrap();
    // What stands before a parenthesis, at the end of its line's words.
    let before = header.split('(').filter_map(|text| text.rsplit([' ', '*', '\n']).next());
    let mut declared: Vec<_> = before.filter(|name| name.starts_with("kolo_") && name.len() > 5).collect();
    let table = run(Command::new("objdump").arg("-T").arg(prefix.join("lib/libkolo.so")));
    let defined = table.lines().filter(|line| line.contains(" .text\t"));
    let mut exported: Vec<_> = defined
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [.., "KOLO_0.1", name] => name,
            _ => panic!("exported without its version: {line}"),
        })
        .collect();
    declared.sort_unstable();
    declared.dedup();
    exported.sort_unstable();
    assert_eq!(exported, declared);
}
