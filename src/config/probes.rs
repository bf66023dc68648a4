//! Probes of the environment; see [`crate::parsers`].

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::MemfdFlags;

use super::{Config, LONGEST, MOST_RANKS};

/// Lines of `NAME=value`.
pub(crate) fn environment(bytes: &[u8]) {
    let lines: Vec<(&[u8], &[u8])> = bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
        .collect();
    let find = |name: &str| {
        // Files are another probe's.
        let found =
            lines.iter().find(|(known, _)| *known == name.as_bytes() && name != "KOLO_SECRET_FILE")?;
        Some(OsString::from_vec(found.1.to_vec()))
    };
    match Config::read(&find) {
        Ok(config) => {
            assert!(config.rank < config.size && config.size <= MOST_RANKS);
            assert!(config.local.is_none_or(|(rank, size)| rank < size && size <= config.size));
            assert!(config.ports == (0..=0) || *config.ports.start() > 0 && !config.ports.is_empty());
            assert!(config.deadline.is_none_or(|deadline| deadline.as_secs_f64() <= LONGEST));
            if let Some(interfaces) = &config.interfaces {
                assert_eq!(interfaces.to_string().parse().as_ref(), Ok(interfaces));
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

pub(crate) fn environments() -> Vec<(&'static str, Vec<u8>)> {
    let of = |text: &str| text.as_bytes().to_vec();
    let kolo = |more: &str| of(&format!("KOLO_RANK=1\nKOLO_SIZE=2\nKOLO_RENDEZVOUS=10.0.0.5:29500\n{more}"));
    vec![
        ("nothing", vec![]),
        ("by-hand", kolo("KOLO_SECRET=0123456789abcdef\nKOLO_JOB=job\nKOLO_DEADLINE=0.5\nKOLO_KEEPALIVE=3")),
        ("short-secret", kolo("KOLO_SECRET=abc")),
        ("places", of("KOLO_RANK=0\nKOLO_SIZE=2\nKOLO_RENDEZVOUS=@name\nKOLO_LISTEN_FD=3")),
        ("ports", kolo("KOLO_PORT=4000-4009")),
        ("ports-backwards", kolo("KOLO_PORT=4009-4000")),
        ("port-too-high", kolo("KOLO_PORT=65536")),
        ("newcomer", of("KOLO_JOIN=1\nKOLO_RENDEZVOUS=10.0.0.5:29500,10.0.0.6:29500")),
        ("newcomer-without-a-place", of("KOLO_JOIN=yes\nKOLO_RENDEZVOUS=,")),
        ("interfaces", kolo("KOLO_INTERFACE=^eth, 10.1.0.0/16,fd00::/64")),
        ("interfaces-no-network", kolo("KOLO_INTERFACE=10.1.0.0/33,/,")),
        (
            "algorithms",
            kolo("KOLO_ALGORITHM=ring,broadcast=tree\nKOLO_DETERMINISTIC=1\nKOLO_TRANSPORT=shm,tcp"),
        ),
        ("algorithm-of-nothing", kolo("KOLO_ALGORITHM=reduce_all=ring,=,")),
        ("never", kolo("KOLO_DEADLINE=none\nKOLO_KEEPALIVE=none")),
        ("infinite", kolo("KOLO_DEADLINE=inf\nKOLO_KEEPALIVE=1e9")),
        ("not-text", [kolo("KOLO_JOB="), vec![0xff, 0xfe]].concat()),
        (
            "open-mpi",
            of("OMPI_COMM_WORLD_RANK=1\nOMPI_COMM_WORLD_SIZE=4\nOMPI_COMM_WORLD_LOCAL_RANK=1\n\
                OMPI_COMM_WORLD_LOCAL_SIZE=2\nPMIX_NAMESPACE=prterun-host-4711@1\nPMIX_RANK=1"),
        ),
        ("pmi", of("PMI_RANK=1\nPMI_SIZE=2\nPMI_FD=5")),
        (
            "torchrun",
            of(
                "TORCHELASTIC_RUN_ID=none\nRANK=0\nWORLD_SIZE=2\nLOCAL_RANK=0\nLOCAL_WORLD_SIZE=2\nMASTER_PORT=29400",
            ),
        ),
        (
            "slurm",
            of("SLURM_PROCID=3\nSLURM_STEP_NUM_TASKS=4\nSLURM_LOCALID=1\nSLURM_STEP_TASKS_PER_NODE=2(x2)\n\
                SLURM_JOB_ID=17"),
        ),
        ("too-many-ranks", of("KOLO_RANK=0\nKOLO_SIZE=18446744073709551616")),
    ]
}

/// A file that holds the job's secret.
pub(crate) fn secret_file(bytes: &[u8]) {
    let file = rustix::fs::memfd_create("secret", MemfdFlags::CLOEXEC).expect("memory for a file");
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, bytes).expect("memory takes it");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let read = Config::read(&|name| (name == "KOLO_SECRET_FILE").then(|| path.clone().into()));
    let start = bytes[..bytes.len().min(4096)].trim_ascii();
    assert_eq!(
        read.is_ok_and(|config| config.secret.is_some()),
        start.len() >= crate::bootstrap::Secret::SHORTEST
    );
}

pub(crate) fn secret_files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a-line", b"0123456789abcdef\n".to_vec()),
        ("short", b"0123456789abcde\n".to_vec()),
        ("spaces", vec![b' '; 5000]),
        ("raw", (0..=255).collect()),
        ("nothing", vec![]),
    ]
}
