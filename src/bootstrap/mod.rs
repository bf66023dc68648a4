//! How ranks find each other, and prove who they are.
//!
//! | way     | when                                     | who vouches                                  |
//! | ------- | ---------------------------------------- | -------------------------------------------- |
//! | alone   | one rank                                 | -                                            |
//! | [`Local`] | threads of one process                 | -                                            |
//! | star    | `kolo run`, mpirun on one host, by hand  | UNIX socket: the kernel; TCP: the job secret |
//! | pmi     | mpiexec of MPICH and Intel MPI           | the launcher, at the other end of `PMI_FD`   |
//! | pmix    | mpirun over several hosts                | the launcher's server on each host           |
//! | [`grow`] | a job that runs takes newcomers in      | as star                                      |
//!
//! What a launcher's servers say to each other may be heard on the network between the hosts, and with it the secret
//! that rank 0 draws. Where strangers listen there, a secret that the user gives besides goes into it.
//!
//! The rest is built on their all-gather: [`Secret::agree`], then each rank opens its [`Door`], then
//! [`Roster::gather`] tells everybody where every other rank lives and where its door is.

mod carrier;
mod dial;
mod door;
mod growth;
mod hall;
mod handshake;
mod hello;
mod inquiry;
mod interfaces;
mod local;
mod node;
mod pmi;
mod pmix;
#[cfg(any(test, fuzzing))]
pub(crate) mod probes;
mod rails;
mod reception;
mod roster;
mod seal;
mod secret;
mod star;
mod stream;
mod window;
mod wire;

use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;

pub use carrier::{Carrier, Connection};
pub use door::Door;
pub use growth::{Gate, Growth, grow};
pub(crate) use hello::VERSION;
pub(crate) use inquiry::{put_report, take_report};
pub use interfaces::Interfaces;
pub use local::Local;
pub use node::{Node, find_host};
pub use roster::{Doorway, Roster, Tcp};
pub use seal::{Opening, SHARE, Sealed, Session};
pub use secret::Secret;
pub(crate) use secret::{digest, hex, random};
pub use window::{Sight, Window};
pub(crate) use wire::{Reader, Writer, cut};

use crate::config::{Config, Place, Rendezvous, Way};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::sys::socket;
use pmi::Pmi;
use pmix::Pmix;
use star::{Hub, Party, Spoke};
use stream::Listener;

/// Lets the ranks of a job exchange a few bytes before any link exists.
pub trait Bootstrap: Send {
    /// This rank.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Every rank's bytes, in rank order. All ranks call it equally often. At most 1 MiB per rank.
    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// How often the job had grown when these ranks met.
    fn generation(&self) -> u32 {
        0
    }

    /// This rank's address on the network through which it came, where it came through one.
    fn address(&self) -> Option<IpAddr> {
        None
    }
}

/// Meets the other ranks in the way that the configuration says. The deadline holds for this and for
/// every all-gather thereafter.
///
/// # Errors
/// `Deadline` names the ranks that did not come, `Refused` says why a rank was not let in (its version,
/// its secret, its number), `System` what the operating system refused, such as a port in use.
pub fn join(config: &Config, deadline: Deadline) -> Result<Box<dyn Bootstrap>> {
    let joined = match &config.way {
        Way::Alone => Ok(Box::new(Alone) as Box<dyn Bootstrap>),
        Way::Pmi { fd } => {
            Pmi::open(*fd, config.rank, config.size, deadline).map(|pmi| Box::new(pmi) as Box<dyn Bootstrap>)
        }
        Way::Pmix { libraries } => Pmix::open(libraries, config.rank, config.size, deadline)
            .map(|pmix| Box::new(pmix) as Box<dyn Bootstrap>),
        Way::Star(rendezvous) => star(config, rendezvous, deadline),
        // It has no number yet.
        Way::Newcomer => return growth::come(config, deadline),
    };
    joined.map_err(|error| error.at(config.rank))
}

/// A job of one rank.
struct Alone;

impl Bootstrap for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![mine.to_vec()])
    }
}

fn star(config: &Config, rendezvous: &Rendezvous, deadline: Deadline) -> Result<Box<dyn Bootstrap>> {
    let &Config { rank, size, ref job, ref secret, ref links, .. } = config;
    let place = meeting_place(&rendezvous.place, secret.as_ref())?;
    let secret = secret.clone().unwrap_or_else(Secret::none);
    let party = Party { rank, size, job, secret: &secret, encrypt: links.encrypt, deadline, growth: None };
    if rank == 0 {
        let listener = listen(&place, rendezvous.listener)?;
        return Ok(Box::new(Hub::open(listener, &party)?));
    }
    Ok(Box::new(Spoke::open(&place, &party)?))
}

/// Where ranks really meet. Over TCP only a secret tells a rank from a stranger. Without one, a
/// loopback address still says that all ranks share a host: then they meet at a UNIX socket that is
/// named after it, where the kernel tells each the other's user.
fn meeting_place(place: &Place, secret: Option<&Secret>) -> Result<Place> {
    let Place::Tcp(host) = place else { return Ok(place.clone()) };
    if secret.is_some() {
        return Ok(place.clone());
    }
    if dial::resolve(host)?.iter().all(|address| address.ip().is_loopback()) {
        let port = host.rsplit(':').next().unwrap_or_default();
        return Ok(Place::of_user(&format!("loopback {port}")));
    }
    let text = format!(
        "KOLO_RENDEZVOUS={host} crosses hosts, and anybody there could join: give every rank the same \
         KOLO_SECRET_FILE (`head -c 32 /dev/urandom | base64 > FILE`) or KOLO_SECRET"
    );
    Err(Error::usage(text))
}

/// Rank 0's listener: the one that the launcher bound, or a new one.
fn listen(place: &Place, inherited: Option<i32>) -> Result<Listener> {
    let Some(fd) = inherited else { return bind(place) };
    let socket = socket::inherited(fd).and_then(|socket| {
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(std::io::Error::other("it is no listening socket"));
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        let listener = UnixListener::from(socket);
        let at = listener.local_addr()?;
        match place {
            Place::Unix(name) if at.as_abstract_name() == Some(name.as_bytes()) => Ok(listener),
            _ => Err(std::io::Error::other("it listens elsewhere than at KOLO_RENDEZVOUS")),
        }
    });
    let taken = |cause| Error::system(format!("taking over KOLO_LISTEN_FD={fd}"), cause);
    socket.map(Listener::Unix).map_err(taken)
}

fn bind(place: &Place) -> Result<Listener> {
    match place {
        Place::Unix(name) => Listener::unix(name).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::AddrInUse => {
                let text = format!("another job already meets at {place}: wait for its end, or set KOLO_JOB");
                Error::new(Kind::System, text)
            }
            _ => Error::system(format!("listening at {place}"), cause),
        }),
        Place::Tcp(host) => {
            let mut failure = None;
            for address in dial::resolve(host)? {
                match Listener::tcp(address) {
                    Ok(listener) => return Ok(listener),
                    Err(cause) => failure = failure.or(Some((address, cause))),
                }
            }
            let (address, cause) = failure.expect("a name that was found has an address");
            let hint = match cause.kind() {
                std::io::ErrorKind::AddrInUse => {
                    format!("port {} is in use: choose another in KOLO_RENDEZVOUS", address.port())
                }
                std::io::ErrorKind::AddrNotAvailable => {
                    format!(
                        "{} is no address of this host, where rank 0 runs: correct KOLO_RENDEZVOUS",
                        address.ip()
                    )
                }
                _ => cause.to_string(),
            };
            Err(Error::new(Kind::System, format!("cannot listen at {host}: {hint}")))
        }
    }
}
