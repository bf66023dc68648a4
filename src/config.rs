//! What the environment says: the only place that reads it, once.
//!
//! A rank learns its number and how to meet the others from the first of these that speaks:
//!
//! | launcher            | rank and size from                            | the ranks meet                            |
//! | ------------------- | --------------------------------------------- | ----------------------------------------- |
//! | `kolo run`, by hand | `KOLO_RANK`, `KOLO_SIZE`                      | at `KOLO_RENDEZVOUS`                      |
//! | Open MPI            | `OMPI_COMM_WORLD_RANK`, `_SIZE`               | at a UNIX socket named after the job      |
//! |                     | the same, on several hosts                    | through PMIx                              |
//! | MPICH, Intel MPI    | `PMI_RANK`, `PMI_SIZE`                        | through `PMI_FD`                          |
//! | torchrun            | `RANK`, `WORLD_SIZE`                          | at a UNIX socket named after `MASTER_PORT` |
//! | srun                | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`        | at a UNIX socket named after the step     |
//! |                     | the same, on several hosts, with `--mpi=pmix` | through PMIx                              |
//! | none                | one rank                                      | -                                         |
//!
//! `KOLO_RENDEZVOUS` is obeyed under any launcher; across hosts, all but PMI and PMIx need it. With `KOLO_JOIN` the
//! process is a newcomer of a job that runs, which tells it its number when it grows.

#[cfg(any(test, fuzzing))]
pub(crate) mod probes;
mod seat;

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bootstrap::{Interfaces, Secret, digest, hex};
use crate::error::{Error, Result};
use crate::plan::CollectiveKind;
use seat::Seat;

/// The variables that are kolo's own, and what each means.
pub const VARIABLES: [(&str, &str); 21] = [
    ("KOLO_RANK", "this rank's number, from 0"),
    ("KOLO_SIZE", "how many ranks there are"),
    ("KOLO_LOCAL_RANK", "this rank's number among those of its host"),
    ("KOLO_LOCAL_SIZE", "how many ranks there are on this host"),
    ("KOLO_JOB", "the job's name, alike on all ranks"),
    (
        "KOLO_RENDEZVOUS",
        "where rank 0 waits for the others: host:port, or @name for an abstract UNIX socket; newcomers are met there or, \
         where a list names more, at the first one that is to be had",
    ),
    (
        "KOLO_JOIN",
        "1: this process is a newcomer, which a job that runs takes in when it grows; by default 0",
    ),
    ("KOLO_LISTEN_FD", "rank 0 only: a descriptor that already listens at KOLO_RENDEZVOUS=@name"),
    ("KOLO_SECRET", "the job's secret, at least 16 bytes"),
    ("KOLO_SECRET_FILE", "a file that holds the job's secret"),
    ("KOLO_ENCRYPT", "1: all that goes over TCP is encrypted, by the job's secret; by default 0"),
    ("KOLO_PORT", "the port or ports (a-b) at which this host's ranks may listen; by default any"),
    ("KOLO_INTERFACE", "interfaces between hosts: names (eth,ib), networks (10.1.0.0/16), ^ and all others"),
    ("KOLO_TRANSPORT", "the transports that may be used, such as shm,tcp; by default all"),
    ("KOLO_LIBFABRIC", "the libfabric.so.1 to load for fabric; by default the system's"),
    ("KOLO_FABRIC_PROVIDER", "the provider of libfabric, such as verbs, tcp or shm; by default its best"),
    ("KOLO_DEADLINE", "after how many seconds a call gives up, or none; by default 600"),
    (
        "KOLO_KEEPALIVE",
        "after how many seconds of a host's silence its ranks are lost (tcp), or none; by default 60",
    ),
    ("KOLO_RECORD", "a folder for what ranks did last, written when a call fails, for kolo trace; or none"),
    (
        "KOLO_ALGORITHM",
        "the algorithm for all collectives (ring) or for some (all_reduce=ring,broadcast=tree)",
    ),
    (
        "KOLO_DETERMINISTIC",
        "1: results depend on the ranks' data alone, whatever the algorithm; by default 0",
    ),
];

/// The most ranks that a job may have.
pub(crate) const MOST_RANKS: usize = 1 << 20;
/// The longest deadline that is not "none": a hundred years, so that the clock cannot overflow.
const LONGEST: f64 = 100.0 * 365.0 * 86400.0;

/// Everything that the environment says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who started this rank.
    pub launcher: Launcher,
    /// This rank; of a newcomer, whatever number its launcher gave it.
    pub rank: usize,
    /// How many there are; to a newcomer it is told when it joins.
    pub size: usize,
    /// This rank's number among those of its host, and how many those are, as the launcher says.
    pub local: Option<(usize, usize)>,
    /// The job's name.
    pub job: String,
    /// How the ranks meet.
    pub way: Way,
    /// The places that `KOLO_RENDEZVOUS` names: at the first the job's ranks meet, at the first that is to be had its
    /// newcomers.
    pub rendezvous: Vec<Place>,
    /// The job's secret, where one was given.
    pub secret: Option<Secret>,
    /// The ports at which a rank may listen; `0..=0` stands for any.
    pub ports: RangeInclusive<u16>,
    /// The interfaces at which other hosts may reach a rank; nothing stands for all.
    pub interfaces: Option<Interfaces>,
    /// The transports that may be used; nothing stands for all.
    pub transports: Option<Vec<String>>,
    /// What is said of the ways between ranks.
    pub links: Links,
    /// After how long a call gives up; nothing stands for never.
    pub deadline: Option<Duration>,
    /// After how long a peer counts as lost whose host has fallen silent; nothing stands for never.
    pub keepalive: Option<Duration>,
    /// Where what ranks did last is written when a call fails; nowhere if nothing is said.
    pub record: Option<PathBuf>,
    /// Named algorithms: for a collective, or for all of them. A later one counts more.
    pub algorithms: Vec<(Option<CollectiveKind>, String)>,
    /// Whether only plans may run whose order of reduction is the ranks' order.
    pub deterministic: bool,
}

/// What is said of the ways between ranks, whichever are taken.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Whether all that goes over TCP is encrypted.
    pub encrypt: bool,
    /// What of libfabric is used.
    pub fabric: Fabric,
}

/// What of libfabric is used.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    /// The library; nothing stands for the system's.
    pub library: Option<PathBuf>,
    /// The provider; nothing stands for the best that reaches other hosts.
    pub provider: Option<String>,
}

/// Who starts ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Nobody: one rank.
    None,
    /// `kolo run`, or a person.
    Kolo,
    /// Open MPI's mpirun.
    OpenMpi,
    /// The mpiexec of MPICH or Intel MPI, or another that speaks PMI-1.
    Pmi,
    /// torchrun.
    Torchrun,
    /// Slurm's srun.
    Slurm,
}

/// How ranks meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is one rank.
    Alone,
    /// At rank 0.
    Star(Rendezvous),
    /// Through the launcher's key-value store.
    Pmi {
        /// The inherited descriptor on which the launcher answers.
        fd: RawFd,
    },
    /// Through the launcher's PMIx server on each host.
    Pmix {
        /// Where the client library may be, the best first.
        libraries: Vec<PathBuf>,
    },
    /// As a newcomer of a job that runs, at one of the configuration's rendezvous.
    Newcomer,
}

/// Where rank 0 waits for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// The place.
    pub place: Place,
    /// Rank 0 under `kolo run`: the inherited descriptor that listens there already.
    pub listener: Option<RawFd>,
}

/// Where somebody may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An abstract UNIX socket, by its name.
    Unix(String),
    /// `host:port`.
    Tcp(String),
}

impl Place {
    /// The UNIX socket of this user that stands for `what`.
    pub(crate) fn of_user(what: &str) -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self::Unix(format!("kolo-{user}-{}", hex(&digest(what.as_bytes())[..12])))
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(name) => write!(f, "@{name}"),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// `Usage` names the variable, its value and what is expected.
    pub fn from_env() -> Result<Self> {
        Self::read(&|name| std::env::var_os(name))
    }

    /// What an empty environment says: one rank.
    pub fn alone() -> Self {
        Self::read(&|_| None).expect("nothing is wrong with nothing")
    }

    /// Reads the variables that `lookup` knows.
    ///
    /// # Errors
    /// `Usage` names the variable, its value and what is expected.
    pub fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let env = Environment { lookup };
        let seat = seat::seat(&env)?;
        let Seat { launcher, rank, size, local, .. } = seat;
        let job = env.text("KOLO_JOB")?.unwrap_or_else(|| seat.job.clone());
        Ok(Self {
            launcher,
            rank,
            size,
            local,
            way: seat::way(&env, &seat, &job)?,
            rendezvous: seat::places(&env)?,
            job,
            secret: secret(&env)?,
            ports: ports(&env)?,
            interfaces: interfaces(&env)?,
            transports: env.text("KOLO_TRANSPORT")?.map(|list| words(&list)),
            links: Links {
                encrypt: flag(&env, "KOLO_ENCRYPT")?,
                fabric: Fabric {
                    library: env.path("KOLO_LIBFABRIC").map(PathBuf::from),
                    provider: env.text("KOLO_FABRIC_PROVIDER")?,
                },
            },
            deadline: deadline(&env)?,
            keepalive: keepalive(&env)?,
            record: env.path("KOLO_RECORD").filter(|folder| folder != "none").map(PathBuf::from),
            algorithms: algorithms(&env)?,
            deterministic: flag(&env, "KOLO_DETERMINISTIC")?,
        })
    }
}

fn secret(env: &Environment<'_>) -> Result<Option<Secret>> {
    let short = |name: &str| {
        let least = Secret::SHORTEST;
        Error::usage(format!(
            "{name} holds less than {least} bytes: `head -c 32 /dev/urandom | base64` makes one"
        ))
    };
    match (env.text("KOLO_SECRET")?, env.path("KOLO_SECRET_FILE")) {
        (Some(_), Some(_)) => {
            Err(Error::usage("KOLO_SECRET and KOLO_SECRET_FILE are both set: give one of them"))
        }
        (Some(secret), None) => {
            Secret::new(secret.trim().as_bytes()).ok_or_else(|| short("KOLO_SECRET")).map(Some)
        }
        (None, Some(path)) => {
            let named = format!("KOLO_SECRET_FILE={}", Path::new(&path).display());
            let bytes =
                read_start(Path::new(&path)).map_err(|cause| Error::usage(format!("{named}: {cause}")))?;
            Secret::new(bytes.trim_ascii()).ok_or_else(|| short(&named)).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// A file's first bytes: as many as any secret needs, however long the file is.
fn read_start(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(4096).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ports(env: &Environment<'_>) -> Result<RangeInclusive<u16>> {
    let Some(value) = env.text("KOLO_PORT")? else { return Ok(0..=0) };
    let (first, last) = value.split_once('-').unwrap_or((&value, &value));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(first..=last),
        _ => Err(env.wrong("KOLO_PORT", &value, "a port or a range of them, such as 29500 or 29500-29563")),
    }
}

fn interfaces(env: &Environment<'_>) -> Result<Option<Interfaces>> {
    let Some(value) = env.text("KOLO_INTERFACE")? else { return Ok(None) };
    let expected = "names of interfaces or networks, such as eth0,ib or 10.1.0.0/16 or ^docker";
    value.parse().map(Some).map_err(|()| env.wrong("KOLO_INTERFACE", &value, expected))
}

fn deadline(env: &Environment<'_>) -> Result<Option<Duration>> {
    const BY_DEFAULT: Duration = Duration::from_secs(600);
    let Some(value) = env.text("KOLO_DEADLINE")? else { return Ok(Some(BY_DEFAULT)) };
    if value == "none" {
        return Ok(None);
    }
    match value.parse::<f64>() {
        Ok(seconds) if 0.0 < seconds && seconds <= LONGEST => Ok(Some(Duration::from_secs_f64(seconds))),
        _ => Err(env.wrong("KOLO_DEADLINE", &value, "seconds, such as 30 or 0.5, or none")),
    }
}

fn keepalive(env: &Environment<'_>) -> Result<Option<Duration>> {
    // Whole seconds are what the kernel takes: some before the first question, some between it and the next.
    const BOUNDS: RangeInclusive<usize> = 3..=7200;
    const BY_DEFAULT: usize = 60;
    if env.text("KOLO_KEEPALIVE")?.as_deref() == Some("none") {
        return Ok(None);
    }
    let seconds = env.number("KOLO_KEEPALIVE", "whole seconds, 3 to 7200, or none", BOUNDS)?;
    Ok(Some(Duration::from_secs(seconds.unwrap_or(BY_DEFAULT) as u64)))
}

fn algorithms(env: &Environment<'_>) -> Result<Vec<(Option<CollectiveKind>, String)>> {
    let Some(value) = env.text("KOLO_ALGORITHM")? else { return Ok(Vec::new()) };
    let parse = |word: String| match word.split_once('=') {
        None => Ok((None, word)),
        Some((kind, name)) if !name.is_empty() => match kind.parse() {
            Ok(kind) => Ok((Some(kind), name.to_owned())),
            Err(error) => Err(Error::usage(format!("KOLO_ALGORITHM=`{value}`: {error}"))),
        },
        Some(_) => Err(env.wrong("KOLO_ALGORITHM", &value, "ring, or all_reduce=ring,broadcast=tree")),
    };
    words(&value).into_iter().map(parse).collect()
}

fn flag(env: &Environment<'_>, name: &str) -> Result<bool> {
    match env.text(name)?.as_deref() {
        None | Some("0" | "false" | "no" | "off") => Ok(false),
        Some("1" | "true" | "yes" | "on") => Ok(true),
        Some(value) => Err(env.wrong(name, value, "1 or 0")),
    }
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Variables, and what is said when one is wrong.
struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Environment<'_> {
    /// A variable's value; an empty one counts as not set.
    fn text(&self, name: &str) -> Result<Option<String>> {
        match (self.lookup)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
            Some(Err(value)) => Err(self.wrong(name, &value.to_string_lossy(), "text in UTF-8")),
        }
    }

    fn path(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str, expected: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &value, expected)),
        }
    }

    /// A number that must be there since `sign` is.
    fn needed(&self, name: &str, sign: &str, expected: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let number = self.number(name, expected, range)?;
        number.ok_or_else(|| Error::usage(format!("{sign} is set but {name} is not: expected {expected}")))
    }

    fn wrong(&self, name: &str, value: &str, expected: &str) -> Error {
        let value = if name == "KOLO_SECRET" { "..." } else { value };
        Error::usage(format!("{name}=`{value}`: expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Config::read(&find)
    }

    fn complaint(variables: &[(&str, &str)]) -> String {
        read(variables).unwrap_err().to_string()
    }

    #[test]
    fn without_a_launcher_there_is_one_rank() {
        let config = read(&[]).unwrap();
        assert_eq!(
            (config.launcher, config.rank, config.size, config.way),
            (Launcher::None, 0, 1, Way::Alone)
        );
        assert_eq!((config.deadline, config.ports), (Some(Duration::from_secs(600)), 0..=0));
        assert_eq!(config.keepalive, Some(Duration::from_secs(60)));
    }

    #[test]
    fn kolo_run_gives_rank_0_its_listener() {
        let common = [("KOLO_SIZE", "4"), ("KOLO_RENDEZVOUS", "@kolo-x"), ("KOLO_JOB", "x")];
        let place = Place::Unix("kolo-x".into());
        let hub = read(&[&common[..], &[("KOLO_RANK", "0"), ("KOLO_LISTEN_FD", "7")]].concat()).unwrap();
        assert_eq!(hub.way, Way::Star(Rendezvous { place: place.clone(), listener: Some(7) }));
        let spoke = read(&[&common[..], &[("KOLO_RANK", "3")]].concat()).unwrap();
        assert_eq!(spoke.way, Way::Star(Rendezvous { place, listener: None }));
        assert_eq!((spoke.rank, spoke.size, spoke.job.as_str()), (3, 4, "x"));
    }

    #[test]
    fn a_newcomer_needs_no_number_but_a_place() {
        let places = [Place::Tcp("a:1".into()), Place::Unix("b".into())];
        let newcomer = [("KOLO_JOIN", "1"), ("KOLO_RENDEZVOUS", "a:1, @b")];
        let config = read(&newcomer).unwrap();
        assert_eq!((config.launcher, &config.way), (Launcher::Kolo, &Way::Newcomer));
        assert_eq!(config.rendezvous, places);
        // What its launcher said of the rank whose place it takes is of no account.
        let seat = [("KOLO_RANK", "1"), ("KOLO_SIZE", "2")];
        assert_eq!(read(&[newcomer, seat].concat()).unwrap().way, Way::Newcomer);
        let rank = read(&[seat, [("KOLO_JOIN", "0"), newcomer[1]]].concat()).unwrap();
        assert_eq!(rank.way, Way::Star(Rendezvous { place: places[0].clone(), listener: None }));
        assert_eq!(rank.rendezvous, places);
        // One rank alone meets nobody, but may be joined.
        let alone = read(&[("KOLO_RANK", "0"), ("KOLO_SIZE", "1"), newcomer[1]]).unwrap();
        assert_eq!((alone.way, alone.rendezvous), (Way::Alone, places.to_vec()));
        assert!(complaint(&newcomer[..1]).starts_with("KOLO_JOIN is set but KOLO_RENDEZVOUS is not: "));
        assert!(complaint(&[newcomer[0], ("KOLO_RENDEZVOUS", "a:1,b")]).contains("`b`: expected host:port"));
    }

    #[test]
    fn each_launcher_is_recognized() {
        let ompi = |rank, namespace| {
            read(&[
                ("OMPI_COMM_WORLD_RANK", rank),
                ("OMPI_COMM_WORLD_SIZE", "2"),
                ("OMPI_COMM_WORLD_LOCAL_RANK", rank),
                ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
                ("PMIX_NAMESPACE", namespace),
            ])
            .unwrap()
        };
        assert_eq!(ompi("0", "a").launcher, Launcher::OpenMpi);
        assert_eq!(ompi("0", "a").way, ompi("1", "a").way);
        assert_ne!(ompi("0", "a").way, ompi("0", "b").way);

        let pmi = read(&[("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("PMI_FD", "9")]).unwrap();
        assert_eq!((pmi.launcher, pmi.way), (Launcher::Pmi, Way::Pmi { fd: 9 }));

        let several = [("OMPI_COMM_WORLD_LOCAL_RANK", "0"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "1")];
        let ompi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let pmix = [("PMIX_NAMESPACE", "a"), ("PMIX_RANK", "1"), ("PMIX_PREFIX", "/nowhere")];
        let hosts = [&ompi[..], &several, &pmix].concat();
        assert_eq!(read(&hosts).unwrap().way, Way::Pmix { libraries: vec!["libpmix.so.2".into()] });
        let given = [&hosts[..], &[("KOLO_RENDEZVOUS", "h:1")]].concat();
        assert!(matches!(read(&given).unwrap().way, Way::Star(_)), "what the user says counts");
        assert!(complaint(&hosts[..4]).contains("KOLO_RENDEZVOUS=host:port"));

        let torch = [("TORCHELASTIC_RUN_ID", "none"), ("RANK", "1"), ("WORLD_SIZE", "2")];
        let here = [("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2"), ("MASTER_PORT", "29500")];
        assert!(matches!(read(&[torch, here].concat()).unwrap().way, Way::Star(_)));

        let slurm =
            [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_STEP_TASKS_PER_NODE", "1(x2)")];
        assert!(complaint(&slurm).contains("KOLO_RENDEZVOUS=host:port"));
        let batch = read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap();
        assert_eq!(batch.launcher, Launcher::None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_value_and_what_is_expected() {
        let by_hand = [("KOLO_RANK", "0"), ("KOLO_SIZE", "2"), ("KOLO_RENDEZVOUS", "h:1")];
        for (name, value, expected) in [
            ("KOLO_RANK", "2", "KOLO_RANK=`2`: expected a rank below KOLO_SIZE=2"),
            ("KOLO_RANK", "-1", "KOLO_RANK=`-1`: expected a rank below KOLO_SIZE=2"),
            ("KOLO_SIZE", "many", "KOLO_SIZE=`many`: expected a number of ranks, 1 to 1048576"),
            ("KOLO_SIZE", "", "KOLO_RANK is set but KOLO_SIZE is not"),
            ("KOLO_LOCAL_RANK", "1", "KOLO_LOCAL_RANK=`1`: expected KOLO_LOCAL_RANK below KOLO_LOCAL_SIZE"),
            ("KOLO_RENDEZVOUS", "h", "KOLO_RENDEZVOUS=`h`: expected host:port"),
            ("KOLO_RENDEZVOUS", "h:0", "KOLO_RENDEZVOUS=`h:0`: expected host:port"),
            ("KOLO_RENDEZVOUS", "@", "KOLO_RENDEZVOUS=`@`: expected a name"),
            ("KOLO_RENDEZVOUS", "", "KOLO_RENDEZVOUS is not set"),
            ("KOLO_LISTEN_FD", "x", "KOLO_LISTEN_FD=`x`: expected an open descriptor"),
            ("KOLO_PORT", "5-4", "KOLO_PORT=`5-4`: expected a port or a range"),
            ("KOLO_PORT", "0", "KOLO_PORT=`0`: expected a port or a range"),
            ("KOLO_INTERFACE", "eth0,", "KOLO_INTERFACE=`eth0,`: expected names of interfaces or networks"),
            ("KOLO_DEADLINE", "-1", "KOLO_DEADLINE=`-1`: expected seconds"),
            ("KOLO_DEADLINE", "NaN", "KOLO_DEADLINE=`NaN`: expected seconds"),
            ("KOLO_DEADLINE", "1e300", "KOLO_DEADLINE=`1e300`: expected seconds"),
            ("KOLO_KEEPALIVE", "2", "KOLO_KEEPALIVE=`2`: expected whole seconds"),
            ("KOLO_KEEPALIVE", "0.5", "KOLO_KEEPALIVE=`0.5`: expected whole seconds"),
            ("KOLO_ALGORITHM", "reduce_all=ring", "KOLO_ALGORITHM=`reduce_all=ring`: unknown collective"),
            ("KOLO_ALGORITHM", "all_reduce=", "KOLO_ALGORITHM=`all_reduce=`: expected ring"),
            ("KOLO_DETERMINISTIC", "2", "KOLO_DETERMINISTIC=`2`: expected 1 or 0"),
            ("KOLO_ENCRYPT", "aes", "KOLO_ENCRYPT=`aes`: expected 1 or 0"),
            ("KOLO_SECRET", "abc", "KOLO_SECRET holds less than 16 bytes"),
            ("KOLO_SECRET_FILE", "/nowhere", "KOLO_SECRET_FILE=/nowhere: No such file"),
        ] {
            let mut variables = vec![(name, value)];
            variables.extend(by_hand);
            let text = complaint(&variables);
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains('\n'));
        }
        assert!(complaint(&[("KOLO_SIZE", "2")]).contains("KOLO_RANK"));
    }

    #[test]
    fn lists_and_choices_are_read() {
        let config = read(&[
            ("KOLO_TRANSPORT", "shm, tcp"),
            ("KOLO_ALGORITHM", "ring,broadcast=tree"),
            ("KOLO_DEADLINE", "none"),
            ("KOLO_KEEPALIVE", "none"),
            ("KOLO_RECORD", "none"),
            ("KOLO_DETERMINISTIC", "1"),
            ("KOLO_ENCRYPT", "yes"),
            ("KOLO_PORT", "4000-4009"),
            ("KOLO_SECRET", "0123456789abcdef"),
        ])
        .unwrap();
        assert_eq!(config.transports.unwrap(), ["shm", "tcp"]);
        let expected = [(None, "ring".into()), (Some(CollectiveKind::Broadcast), "tree".into())];
        assert_eq!(config.algorithms, expected);
        assert_eq!((config.deadline, config.keepalive, config.record), (None, None, None));
        let folder = read(&[("KOLO_RECORD", "records")]).unwrap().record;
        assert_eq!((folder, read(&[]).unwrap().record), (Some("records".into()), None));
        assert_eq!((config.deterministic, config.links.encrypt, config.ports), (true, true, 4000..=4009));
        assert_eq!(config.secret, Secret::new(b"0123456789abcdef"));
    }
}
