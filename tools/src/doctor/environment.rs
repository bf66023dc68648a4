//! What the environment says, which transports reach, and which launchers are there.

use std::process::{Command, Stdio};

use kolo::config::{Config, Launcher, VARIABLES, Way};

use super::Fact;

pub(super) fn launcher() -> Vec<Fact> {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return vec![Fact::found("environment", Err(error))],
    };
    let name = match config.launcher {
        Launcher::None => return vec![Fact::plain("launcher", "none: this process is one rank alone")],
        Launcher::Kolo => "kolo run, or by hand",
        Launcher::OpenMpi => "Open MPI",
        Launcher::Pmi => "MPICH, Intel MPI or another that speaks PMI",
        Launcher::Torchrun => "torchrun",
        Launcher::Slurm => "srun",
    };
    let way = match &config.way {
        Way::Alone => "nobody".to_owned(),
        Way::Star(rendezvous) => format!("at {}", rendezvous.place),
        Way::Pmi { fd } => format!("through the launcher, on descriptor {fd}"),
    };
    vec![
        Fact::plain("launcher", name),
        Fact::plain("rank", format!("{} of {}", config.rank, config.size)),
        Fact::plain("meets", way),
    ]
}

pub(super) fn settings() -> Vec<Fact> {
    todo!()
}

pub(super) fn transports() -> Vec<Fact> {
    todo!()
}

/// Launchers that can be used besides `kolo run`.
pub(super) fn installed() -> Vec<Fact> {
    [("mpirun", true), ("mpiexec.hydra", true), ("srun", true), ("torchrun", false)]
        .into_iter()
        .filter_map(|(name, ask)| {
            let path = which::which(name).ok()?;
            let version = if ask { version(&path) } else { None };
            let version = version.map_or(String::new(), |version| format!(" ({version})"));
            Some(Fact::plain(name, format!("{}{version}", path.display())))
        })
        .chain(std::iter::once(Fact::plain("kolo run", "always")))
        .collect()
}

/// The first line that says something of what `PROGRAM --version` prints.
fn version(program: &std::path::Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let worth = |line: &&str| line.chars().any(|c| c.is_ascii_digit());
    text.lines().find(worth).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}
