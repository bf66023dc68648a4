//! `kolo bench` under other launchers: it joins what they start. A launcher that is not installed is skipped,
//! but in CI it is missed.

mod support;

use std::process::Command;

use support::finish;

/// The first of these programs that is installed.
fn installed(names: &[&str]) -> Option<std::path::PathBuf> {
    let found = names.iter().find_map(|name| which::which(name).ok());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{names:?} is not installed");
        eprintln!("skipped: {names:?} is not installed");
    }
    found
}

fn joins(command: &mut Command) {
    let bench = ["bench", "all_reduce", "--check", "-b", "4", "-e", "64K", "-f", "8", "--iters", "3"];
    let (code, out, err) = finish(command.arg(env!("CARGO_BIN_EXE_kolo")).args(bench));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("all_reduce: 4 ranks") && out.contains("\n# wrong elements: 0\n"), "{out}{err}");
    assert_eq!(out.matches("wrong elements").count(), 1, "only rank 0 prints: {out}");
}

#[test]
fn open_mpi_starts_four_ranks() {
    let Some(mpirun) = installed(&["mpirun.openmpi", "mpirun"]) else { return };
    let mut command = Command::new(mpirun);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    joins(command.args(["-n", "4", "--oversubscribe"]));
}

#[test]
fn mpich_starts_four_ranks() {
    let Some(mpiexec) = installed(&["mpiexec.hydra"]) else { return };
    joins(Command::new(mpiexec).args(["-n", "4"]));
}
