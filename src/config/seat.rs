//! A rank's place in its job, as its launcher gives it, and how it meets the others.

use std::os::fd::RawFd;
use std::path::PathBuf;

use super::{Environment, Launcher, MOST_RANKS, Place, Rendezvous, Way, flag, words};
use crate::error::{Error, Result};

/// A rank's place as its launcher gives it.
pub(super) struct Seat {
    pub(super) launcher: Launcher,
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) local: Option<(usize, usize)>,
    /// Names the job among all of this user's on this host.
    pub(super) job: String,
}

/// Which variables of a launcher say what.
struct Names {
    launcher: Launcher,
    /// Tells that this launcher started the rank.
    sign: &'static str,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: &'static str,
    /// Together they name the job.
    job: &'static [&'static str],
}

const LAUNCHERS: [Names; 5] = [
    Names {
        launcher: Launcher::Kolo,
        sign: "KOLO_RANK",
        rank: "KOLO_RANK",
        size: "KOLO_SIZE",
        local_rank: "KOLO_LOCAL_RANK",
        local_size: "KOLO_LOCAL_SIZE",
        job: &[],
    },
    Names {
        launcher: Launcher::OpenMpi,
        sign: "OMPI_COMM_WORLD_RANK",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
        job: &["PMIX_NAMESPACE"],
    },
    Names {
        launcher: Launcher::Pmi,
        sign: "PMI_RANK",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_size: "MPI_LOCALNRANKS",
        job: &[],
    },
    Names {
        launcher: Launcher::Torchrun,
        sign: "TORCHELASTIC_RUN_ID",
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_size: "LOCAL_WORLD_SIZE",
        job: &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"],
    },
    Names {
        launcher: Launcher::Slurm,
        // Only srun sets it; in a batch script, which is no rank, there is a SLURM_PROCID as well.
        sign: "SLURM_STEP_NUM_TASKS",
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
        local_rank: "SLURM_LOCALID",
        local_size: "SLURM_STEP_TASKS_PER_NODE",
        job: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
    },
];

pub(super) fn seat(env: &Environment<'_>) -> Result<Seat> {
    let mut found = None;
    for names in &LAUNCHERS {
        if env.text(names.sign)?.is_some() {
            found = Some(names);
            break;
        }
    }
    let Some(names) = found else {
        if flag(env, "KOLO_JOIN")? {
            return Ok(Seat { launcher: Launcher::Kolo, rank: 0, size: 1, local: None, job: String::new() });
        }
        if let Some(size) = env.text("KOLO_SIZE")? {
            return Err(env.wrong("KOLO_SIZE", &size, "KOLO_RANK beside it"));
        }
        return Ok(Seat {
            launcher: Launcher::None,
            rank: 0,
            size: 1,
            local: Some((0, 1)),
            job: String::new(),
        });
    };
    let size =
        env.needed(names.size, names.sign, &format!("a number of ranks, 1 to {MOST_RANKS}"), 1..=MOST_RANKS)?;
    let below = format!("a rank below {}={size}", names.size);
    let rank = env.needed(names.rank, names.sign, &below, 0..=size - 1)?;
    let mut job = String::new();
    for name in names.job {
        job += &format!("{}/", env.text(name)?.unwrap_or_default());
    }
    // A host's ranks may be said in a form that is no number (Slurm's `4(x2)`); then they are not known.
    let local = match (env.text(names.local_rank)?, env.text(names.local_size)?) {
        (Some(rank), Some(size)) => rank.parse().ok().zip(size.parse().ok()),
        _ => None,
    };
    let local = local.filter(|(local_rank, local_size)| local_rank < local_size && *local_size <= size);
    if names.launcher == Launcher::Kolo && local.is_none() {
        for name in [names.local_rank, names.local_size] {
            if let Some(value) = env.text(name)? {
                let expected = "KOLO_LOCAL_RANK below KOLO_LOCAL_SIZE, which is at most KOLO_SIZE";
                return Err(env.wrong(name, &value, expected));
            }
        }
    }
    Ok(Seat { launcher: names.launcher, rank, size, local, job })
}

pub(super) fn way(env: &Environment<'_>, seat: &Seat, job: &str) -> Result<Way> {
    let place = places(env)?.into_iter().next();
    if flag(env, "KOLO_JOIN")? {
        let text = "KOLO_JOIN is set but KOLO_RENDEZVOUS is not: expected where the job meets its newcomers";
        return place.map(|_| Way::Newcomer).ok_or_else(|| Error::usage(text));
    }
    let listener = env.number("KOLO_LISTEN_FD", "an open descriptor", 0..=RawFd::MAX as usize)?;
    let listener = listener.filter(|_| seat.rank == 0).map(|fd| fd as RawFd);
    // One rank meets nobody; a listener that it was given serves when it grows.
    if seat.size == 1 && (place.is_none() || listener.is_none()) {
        return Ok(Way::Alone);
    }
    if let Some(place) = place {
        return Ok(Way::Star(Rendezvous { place, listener }));
    }
    if seat.launcher == Launcher::Kolo {
        let text = "KOLO_RENDEZVOUS is not set: give every rank the host:port at which rank 0 is to wait";
        return Err(Error::usage(text));
    }
    if seat.launcher == Launcher::Pmi {
        let expected = "an open descriptor; with a launcher that gives none, set KOLO_RENDEZVOUS";
        let fd = env.needed("PMI_FD", "PMI_RANK", expected, 0..=RawFd::MAX as usize)? as RawFd;
        return Ok(Way::Pmi { fd });
    }
    match seat.local {
        Some((_, here)) if here == seat.size => {
            let what = format!("{:?} {} {job}", seat.launcher, seat.job);
            Ok(Way::Star(Rendezvous { place: Place::of_user(&what), listener: None }))
        }
        _ if env.text("PMIX_NAMESPACE")?.is_some() && env.text("PMIX_RANK")?.is_some() => {
            Ok(Way::Pmix { libraries: pmix_libraries(env) })
        }
        _ => Err(Error::usage(
            "the ranks are on several hosts, and this launcher does not tell kolo where: give every rank \
             KOLO_RENDEZVOUS=host:port (of rank 0's host) and KOLO_SECRET_FILE",
        )),
    }
}

/// Where the client library of PMIx may be: that of the launcher's installation, if it says where that is, then
/// whichever the system finds.
fn pmix_libraries(env: &Environment<'_>) -> Vec<PathBuf> {
    const NAME: &str = "libpmix.so.2";
    // Open MPI sets the second one on all hosts, the first on its own alone; its wheel has the library in a folder below.
    let prefixes = ["PMIX_PREFIX", "OPAL_PREFIX"].into_iter().filter_map(|name| env.path(name));
    let folders = prefixes.map(|prefix| PathBuf::from(prefix).join("lib"));
    let installed = folders.flat_map(|lib| [lib.join(NAME), lib.join("openmpi").join(NAME)]);
    installed.filter(|path| path.exists()).chain([PathBuf::from(NAME)]).collect()
}

/// The places that `KOLO_RENDEZVOUS` names.
pub(super) fn places(env: &Environment<'_>) -> Result<Vec<Place>> {
    let list = env.text("KOLO_RENDEZVOUS")?.unwrap_or_default();
    words(&list).into_iter().map(|place| parse_place(env, place)).collect()
}

fn parse_place(env: &Environment<'_>, place: String) -> Result<Place> {
    const EXPECTED: &str = "host:port of rank 0, such as 10.0.0.5:29500";
    if let Some(name) = place.strip_prefix('@') {
        // An abstract socket's name is one byte of zero and at most 107 more.
        if name.is_empty() || name.len() > 107 {
            return Err(env.wrong("KOLO_RENDEZVOUS", &place, "a name of 1 to 107 bytes after the @"));
        }
        return Ok(Place::Unix(name.to_owned()));
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Ok(Place::Tcp(place))
        }
        _ => Err(env.wrong("KOLO_RENDEZVOUS", &place, EXPECTED)),
    }
}
