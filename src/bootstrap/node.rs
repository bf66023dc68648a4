//! What a rank tells all others about itself.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use super::Door;
use super::hello::VERSION;
use super::secret::digest;
use super::stream::{Dialed, dial_unix, room_for_another};
use super::wire::{Reader, Writer};
use crate::error::{Error, Kind, Result};
use crate::sys::cgroup::{Cgroup, Killed};

/// The most addresses of one rank.
const ADDRESSES: usize = 16;
/// The longest string, and the longest name of a file.
const TEXT: usize = 107;
const PATH: usize = 512;

/// A rank's card: where it runs and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// kolo's version there.
    pub version: String,
    /// The user.
    pub user: u32,
    /// The process, as its own process namespace numbers it.
    pub pid: u32,
    /// Differs from every other process's, on any host; two ranks with the same one are threads of one
    /// process.
    pub process: [u8; 16],
    /// Differs from one start of one kernel to another; zeros where it cannot be read.
    pub boot: [u8; 16],
    /// Tells apart the network namespaces of one kernel: where two ranks have the same one, each can
    /// reach the other's loopback addresses.
    pub network: u64,
    /// The name of the rank's door, an abstract UNIX socket.
    pub door: String,
    /// Where its TCP door is, the best address first, one for each rail; none while there is none.
    pub tcp: Vec<SocketAddr>,
    /// How many bits of each of these addresses name its network.
    pub networks: Vec<u8>,
    /// What it has of libfabric: provider and version; nothing where it has none, or was not asked.
    pub fabric: String,
    /// Where the kernel counts whom it kills for want of memory, and what it had counted when this was written.
    pub cgroup: Option<Cgroup>,
}

impl Node {
    /// This rank's card.
    pub fn here(door: &Door) -> Self {
        let pid = std::process::id();
        Self {
            version: VERSION.to_owned(),
            user: rustix::process::geteuid().as_raw(),
            pid,
            process: look_at(pid).0,
            boot: boot(),
            network: inode("/proc/self/ns/net"),
            door: door.name().to_owned(),
            tcp: Vec::new(),
            networks: Vec::new(),
            fabric: String::new(),
            cgroup: Cgroup::own(),
        }
    }

    /// How its process ended, as far as its host tells, for a rank that finds it dead: it `was killed ...`.
    pub fn end(&self, seen_from: &Self) -> Option<String> {
        let here = self.boot == seen_from.boot && self.boot != [0; 16];
        let Killed { cgroup, shared } = self.cgroup.as_ref().filter(|_| here)?.killed_since(self.pid)?;
        let (sure, others) = match shared {
            false => ("was", ""),
            true => ("has ended, and may have been", ", in which others run, too,"),
        };
        let process = self.pid;
        Some(format!(
            "(process {process} on this host) {sure} killed for memory: its cgroup {cgroup}{others} counted an oom_kill"
        ))
    }

    /// The state of its process, as `ps` writes it (`T`: stopped), where this process can see it.
    pub fn state(&self) -> Option<char> {
        let (process, state) = look_at(self.pid);
        state.filter(|_| process == self.process)
    }

    /// Whether both reach each other's loopback addresses.
    pub fn shares_loopback(&self, other: &Self) -> bool {
        self.boot == other.boot && self.network == other.network
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let card = Writer::default().text(&self.version).u32(self.user).u32(self.pid);
        let card = card.raw(&self.process).raw(&self.boot).u64(self.network).text(&self.door);
        let card = card.text(&self.fabric);
        let card = match self.cgroup.as_ref().map(Cgroup::parts) {
            None => card.u8(0),
            Some((file, inode, killed)) => card.u8(1).text(file).u64(inode).u64(killed),
        };
        let addresses = self.tcp.iter().zip(&self.networks).take(ADDRESSES);
        addresses.clone().fold(card.u8(addresses.len() as u8), put_address).done()
    }

    /// From the bytes that `rank` sent.
    ///
    /// # Errors
    /// `Refused` where they are no card, and where they are another version's.
    pub fn decode(rank: usize, bytes: &[u8]) -> Result<Self> {
        // The version stands first and is judged first: what follows may be any other version's.
        let version = Reader::new(bytes).text(TEXT).unwrap_or("of an unknown version");
        if version != VERSION {
            let version = super::handshake::printable(version.as_bytes());
            let text = format!(
                "rank {rank} runs kolo {version}, this rank kolo {VERSION}: start one version everywhere"
            );
            return Err(Error::new(Kind::Refused, text));
        }
        let malformed = || Error::new(Kind::Refused, format!("rank {rank} sent a card that cannot be read"));
        Self::parse(bytes).ok_or_else(malformed)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.text(TEXT)?.to_owned();
        let (user, pid) = (reader.u32()?, reader.u32()?);
        let (process, boot, network) = (reader.array()?, reader.array()?, reader.u64()?);
        let door = reader.text(TEXT)?.to_owned();
        let fabric = reader.text(TEXT)?.to_owned();
        let cgroup = match reader.u8()? {
            0 => None,
            1 => Some(Cgroup::new(reader.text(PATH)?.to_owned(), reader.u64()?, reader.u64()?)?),
            _ => return None,
        };
        let count = usize::from(reader.u8()?);
        if count > ADDRESSES {
            return None;
        }
        let addresses = (0..count).map(|_| take_address(&mut reader)).collect::<Option<Vec<_>>>()?;
        let (tcp, networks) = addresses.into_iter().unzip();
        reader.end()?;
        Some(Self { version, user, pid, process, boot, network, door, tcp, networks, fabric, cgroup })
    }
}

/// What tells a process of this one's process namespace apart from all others, and its state.
fn look_at(pid: u32) -> ([u8; 16], Option<char>) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields 3 and 22 of proc(5); the second, which may hold anything, ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // A number may be used again; with the moment at which its process began, it may not.
    let began = fields.get(19).copied().unwrap_or("0");
    let process = format!("{:?} {} {pid} {began}", boot(), inode("/proc/self/ns/pid"));
    let mut token = [0; 16];
    token.copy_from_slice(&digest(process.as_bytes())[..16]);
    (token, fields.first().and_then(|state| state.chars().next()))
}

fn inode(path: &str) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.ino())
}

fn put_address(card: Writer, (address, bits): (&SocketAddr, &u8)) -> Writer {
    let card = match address.ip() {
        IpAddr::V4(ip) => card.u8(4).raw(&ip.octets()),
        IpAddr::V6(ip) => card.u8(6).raw(&ip.octets()),
    };
    card.u16(address.port()).u8(*bits)
}

fn take_address(reader: &mut Reader<'_>) -> Option<(SocketAddr, u8)> {
    let ip: IpAddr = match reader.u8()? {
        4 => reader.array::<4>()?.into(),
        6 => reader.array::<16>()?.into(),
        _ => return None,
    };
    Some(((ip, reader.u16()?).into(), reader.u8()?))
}

fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

/// The lowest rank that lives on the host of `me`: one whose door `me` can reach. Names prove nothing:
/// containers on one machine may be apart, and two machines may bear one name.
///
/// # Errors
/// `System` where this rank can have no socket to try it with.
pub fn find_host(nodes: &[Node], me: usize) -> Result<u32> {
    for (rank, node) in nodes[..me].iter().enumerate() {
        let same_process = node.process == nodes[me].process;
        if same_process || node.shares_loopback(&nodes[me]) && is_open(&node.door)? {
            return Ok(rank as u32);
        }
    }
    Ok(me as u32)
}

fn is_open(door: &str) -> Result<bool> {
    match dial_unix(door) {
        // A door at which too many knock at once is a door that was found.
        Ok(Dialed::Open(_) | Dialed::Busy) => Ok(true),
        Ok(Dialed::Absent(_)) => Ok(false),
        Err(_) => room_for_another().map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::Secret;

    fn node() -> Node {
        let door = Door::open("test", 0, 1, Secret::random().unwrap()).unwrap();
        let tcp = vec!["10.1.2.3:4000".parse().unwrap(), "[fd00::1]:4001".parse().unwrap()];
        Node { tcp, networks: vec![24, 64], ..Node::here(&door) }
    }

    #[test]
    fn a_card_survives_its_encoding_and_nothing_less_is_one() {
        let bytes = node().encode();
        assert_eq!(Node::decode(3, &bytes).unwrap().tcp.len(), 2);
        assert_eq!(Node::decode(3, &bytes).unwrap().encode(), bytes);
        for len in 0..bytes.len() {
            assert!(Node::decode(3, &bytes[..len]).unwrap_err().to_string().starts_with("rank 3 "));
        }
        assert!(Node::decode(3, &[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn a_process_is_seen_where_it_is_the_same_one() {
        assert!(node().state().is_some_and(|state| state.is_ascii_alphabetic()));
        assert_eq!(Node { process: [0; 16], ..node() }.state(), None);
        assert_eq!(Node { pid: u32::MAX, ..node() }.state(), None);
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        let bytes = node().encode();
        for _ in 0..20_000 {
            let mut garbled = bytes.clone();
            for _ in 0..1 + next() % 4 {
                let at = next() % garbled.len();
                garbled[at] = next() as u8;
            }
            let _ = Node::decode(0, &garbled);
        }
    }

    #[test]
    fn another_version_is_named() {
        let text =
            Node::decode(2, &Node { version: "9.9".into(), ..node() }.encode()).unwrap_err().to_string();
        assert!(text.contains("rank 2 runs kolo 9.9") && text.contains(VERSION), "{text}");
    }
}
