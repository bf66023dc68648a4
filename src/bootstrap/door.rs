//! Where peers knock: listeners, and the proof of the job's secret on every connection.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dial::{dial, reach, within};
use super::handshake::{Hello, Purpose, Refusal, Via, same_job, same_version};
use super::interfaces::addresses;
use super::reception::{Guest, News, Reception};
use super::secret::{Secret, hex, random};
use super::stream::{Dialed, Listener, Stream};
use super::{Doorway, Node};
use crate::config::Place;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::topology::rail;
use crate::transport::Meeting;

/// How many streams may wait to be fetched.
const MAILBOX: usize = 4096;
/// How often a rank that waits for a peer's knock looks whether that peer is still there.
const PROBE: Duration = Duration::from_secs(1);

/// This rank's listeners, and streams to its peers by appointment.
///
/// Of two ranks that are to be linked the lower one dials and the higher one waits. Ranks link to their
/// peers in ascending order, so that no circle of ranks can wait for one another; a rank that dials while
/// its peer is still busy elsewhere waits for the answer. Whoever knocks meanwhile is asked who it is:
/// a rank of this job that comes early is kept until its link's turn, a stranger is sent away.
///
/// All communicators of a process share one door, and any thread may wait at it: one of them attends to
/// the listeners, the others sleep until something was delivered.
pub struct Door {
    me: usize,
    size: usize,
    job: String,
    secret: Secret,
    name: String,
    state: Mutex<State>,
    delivered: Condvar,
}

struct State {
    /// Nothing while a thread attends to it.
    reception: Option<Reception>,
    /// Streams whose link's turn has not come.
    mailbox: HashMap<Appointment, Stream>,
}

/// Which stream with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Appointment {
    peer: usize,
    purpose: Purpose,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("rank", &self.me).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Door {
    /// Opens the door of rank `me` of `size`, at an abstract UNIX socket with a name that nobody guesses.
    ///
    /// # Errors
    /// `System` where no socket can be had.
    pub fn open(job: &str, me: usize, size: usize, secret: Secret) -> Result<Self> {
        let name = format!("kolo-door-{}", hex(&random::<16>()?));
        let listener =
            Listener::unix(&name).map_err(|cause| Error::system("opening a UNIX socket", cause))?;
        let mut reception = Reception::default();
        reception.listen(listener);
        let state = Mutex::new(State { reception: Some(reception), mailbox: HashMap::new() });
        Ok(Self { me, size, job: job.to_owned(), secret, name, state, delivered: Condvar::new() })
    }

    /// Opens it to TCP as well, at the first free port that is allowed, and says at which addresses, and how many of
    /// their bits name their networks: only within this host (`loopback`), or at all that are allowed, first at `own`,
    /// the one that led this rank to the rendezvous.
    pub(super) fn open_tcp(
        &mut self,
        loopback: bool,
        own: Option<IpAddr>,
        doorway: Doorway<'_>,
    ) -> Result<Vec<(SocketAddr, u8)>> {
        // Where IPv6 is switched off, its address is refused and IPv4's serves.
        let interfaces: &[IpAddr] = match loopback {
            true => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
            false => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        };
        let beyond = if loopback { Vec::new() } else { addresses(own, doorway.interfaces)? };
        let (listener, at) = listen_at_one(interfaces, doorway.ports)?;
        let (here, bits) = (at.ip(), if at.is_ipv4() { 8 } else { 128 });
        let addresses = if loopback { vec![(here, bits)] } else { beyond };
        let port = at.port();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.reception.get_or_insert_default().listen(listener);
        Ok(addresses.into_iter().map(|(ip, bits)| (SocketAddr::new(ip, port), bits)).collect())
    }

    /// The name of its abstract UNIX socket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A UNIX stream to the peer, whose process is this user's.
    ///
    /// # Errors
    /// `PeerLost` where the peer has ended, `Deadline` where it did not come in time.
    pub fn unix(&self, meeting: &Meeting<'_>) -> Result<UnixStream> {
        match self.meet(meeting, Via::Unix)? {
            Stream::Unix(stream) => Ok(stream),
            Stream::Tcp(_) => unreachable!("who comes through TCP is not let in for a UNIX stream"),
        }
    }

    /// A TCP stream to the peer.
    ///
    /// # Errors
    /// `PeerLost` where the peer has ended, `Deadline` where it did not come in time.
    pub fn tcp(&self, meeting: &Meeting<'_>) -> Result<TcpStream> {
        match self.meet(meeting, Via::Tcp)? {
            Stream::Tcp(stream) => Ok(stream),
            Stream::Unix(_) => unreachable!("who comes through a UNIX socket is not let in for a TCP stream"),
        }
    }

    fn meet(&self, meeting: &Meeting<'_>, via: Via) -> Result<Stream> {
        let &Meeting { peer, communicator, channel, node, deadline, .. } = meeting;
        let appointment = Appointment { peer, purpose: Purpose::Link { communicator, channel, via } };
        self.keep(appointment, node, &deadline).map_err(|error| error.at(self.me).with(peer))
    }

    fn keep(&self, appointment: Appointment, node: &Node, deadline: &Deadline) -> Result<Stream> {
        let places = places(appointment.purpose, node);
        if self.me > appointment.peer {
            return self.wait(appointment, &places, deadline);
        }
        let ranks = (self.me, appointment.peer);
        let mut failure = None;
        for place in &places {
            let hello = Hello::new(&self.job, ranks, self.size, appointment.purpose, random()?);
            match dial(place, &hello, &self.secret, false, deadline) {
                Ok(stream) => return Ok(stream),
                // The first address is the best one, so that what is wrong there tells most.
                Err(error) => _ = failure.get_or_insert(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Kind::Usage, "it opened no TCP door")))
    }

    /// Waits until the peer has knocked.
    fn wait(&self, appointment: Appointment, places: &[Place], deadline: &Deadline) -> Result<Stream> {
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.mailbox.remove(&appointment) {
                return Ok(stream);
            }
            if deadline.passed() {
                let text = format!("it did not connect{}: is it still running?", within(deadline));
                return Err(Error::new(Kind::Deadline, text));
            }
            let slice = Deadline::after(Some(deadline.left().map_or(PROBE, |left| left.min(PROBE))));
            let Some(mut reception) = state.reception.take() else {
                let left = slice.left().unwrap_or_default();
                state = self.delivered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            let room = state.mailbox.len() < MAILBOX;
            drop(state);
            let mut judge = |hello: &Hello| self.welcome(hello, room);
            let news = reception.attend(&self.secret, &mut judge, &[], &slice);
            let refusals = reception.refusals();
            let gone = matches!(news, Ok(News::Late)) && places.iter().any(refuses);
            state = self.lock();
            state.reception = Some(reception);
            self.delivered.notify_all();
            match news? {
                News::Guests(guests) => deliver(&mut state.mailbox, guests),
                News::Odds(why, _) => return Err(Error::new(Kind::Refused, why)),
                News::Late if gone => {
                    return Err(Error::new(Kind::PeerLost, "it ended before it connected"));
                }
                News::Late if deadline.passed() && !state.mailbox.contains_key(&appointment) => {
                    let text = format!("it did not connect{}{refusals}", within(deadline));
                    return Err(Error::new(Kind::Deadline, text));
                }
                News::Late | News::Gone => {}
            }
        }
    }

    /// Whether somebody who proved the secret may leave a stream here.
    fn welcome(&self, hello: &Hello, room: bool) -> Result<(), Refusal> {
        same_job(hello, &self.job)?;
        same_version(hello)?;
        let (from, to) = (hello.from as usize, hello.to as usize);
        let link = matches!(hello.purpose, Purpose::Link { .. });
        if !link || to != self.me || from >= to || hello.size as usize != self.size {
            let why =
                format!("rank {from} of {} knocked at rank {}'s door for rank {to}", hello.size, self.me);
            return Err(Refusal::stranger(why));
        }
        match room {
            true => Ok(()),
            false => Err(Refusal::stranger(format!("rank {from} came while {MAILBOX} streams were waiting"))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(mailbox: &mut HashMap<Appointment, Stream>, guests: Vec<Guest>) {
    for Guest { stream, hello } in guests {
        let via = if matches!(stream, Stream::Unix(_)) { Via::Unix } else { Via::Tcp };
        let Purpose::Link { communicator, channel, .. } = hello.purpose else { continue };
        // How it came counts, not how it says that it came.
        let purpose = Purpose::Link { communicator, channel, via };
        mailbox.insert(Appointment { peer: hello.from as usize, purpose }, stream);
    }
}

/// Where a peer's door is; for a stream on a rail, there first.
fn places(purpose: Purpose, node: &Node) -> Vec<Place> {
    match purpose {
        Purpose::Link { via: Via::Tcp, channel, .. } => {
            let rail = rail(channel) % node.tcp.len().max(1);
            let doors = node.tcp[rail..].iter().chain(&node.tcp[..rail]);
            doors.map(|address| Place::Tcp(address.to_string())).collect()
        }
        _ => vec![Place::Unix(node.door.clone())],
    }
}

/// Whether nobody listens at a place any more.
fn refuses(place: &Place) -> bool {
    let probe = Deadline::after(Some(PROBE / 10));
    matches!(reach(place, &probe), Ok(Dialed::Absent(cause)) if cause.kind() == ErrorKind::ConnectionRefused)
}

/// A listener at the first of these interfaces and ports that is to be had, and where that is.
fn listen_at_one(interfaces: &[IpAddr], ports: &RangeInclusive<u16>) -> Result<(Listener, SocketAddr)> {
    let mut failure = None;
    for port in ports.clone() {
        for &interface in interfaces {
            let wanted = SocketAddr::new(interface, port);
            match Listener::tcp(wanted) {
                Ok(listener) => {
                    let at = listener.address().unwrap_or(wanted);
                    return Ok((listener, at));
                }
                Err(cause) => {
                    let taken = cause.kind() == ErrorKind::AddrInUse;
                    failure = Some(cause);
                    // The next one is for hosts on which this one's family is switched off.
                    if taken {
                        break;
                    }
                }
            }
        }
    }
    let cause = failure.unwrap_or_else(|| ErrorKind::AddrInUse.into());
    let (first, last) = (ports.start(), ports.end());
    if *last == 0 {
        return Err(Error::system("opening a TCP port", cause));
    }
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let text =
        format!("no free port in KOLO_PORT={ports} ({cause}): it takes one for each rank of this host");
    Err(Error::new(Kind::System, text))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use super::*;

    const LINK: Purpose = Purpose::Link { communicator: 7, channel: 0, via: Via::Unix };
    const LONG: Duration = Duration::from_secs(60);

    fn doors(size: usize) -> (Vec<Arc<Door>>, Vec<Node>) {
        let secret = Secret::random().unwrap();
        let mut doors: Vec<Door> =
            (0..size).map(|me| Door::open("test", me, size, secret.clone()).unwrap()).collect();
        let card = |door: &mut Door| {
            let doorway = Doorway { ports: &(0..=0), interfaces: None };
            let (tcp, networks) = door.open_tcp(true, None, doorway).unwrap().into_iter().unzip();
            Node { tcp, networks, ..Node::here(door) }
        };
        let nodes = doors.iter_mut().map(card).collect();
        (doors.into_iter().map(Arc::new).collect(), nodes)
    }

    fn keep(door: &Door, nodes: &[Node], peer: usize, purpose: Purpose) -> Result<Stream> {
        door.keep(Appointment { peer, purpose }, &nodes[peer], &Deadline::after(Some(LONG)))
    }

    /// Sends a word through a stream and expects the peer's.
    fn exchange(stream: Stream, word: u8) -> u8 {
        let mut heard = [0];
        match stream {
            Stream::Unix(mut stream) => {
                stream.set_nonblocking(false).unwrap();
                stream.write_all(&[word]).unwrap();
                stream.read_exact(&mut heard).unwrap();
            }
            Stream::Tcp(mut stream) => {
                stream.set_nonblocking(false).unwrap();
                stream.write_all(&[word]).unwrap();
                stream.read_exact(&mut heard).unwrap();
            }
        }
        heard[0]
    }

    #[test]
    fn all_pairs_meet_by_both_ways_in_ascending_order() {
        let (doors, nodes) = doors(5);
        let rank = |me: usize| {
            let (door, nodes) = (Arc::clone(&doors[me]), nodes.clone());
            std::thread::spawn(move || {
                for peer in (0..5).filter(|&peer| peer != me) {
                    for (channel, via) in [(0, Via::Unix), (0, Via::Tcp), (1, Via::Unix)] {
                        let purpose = Purpose::Link { communicator: 1, channel, via };
                        let stream = keep(&door, &nodes, peer, purpose).unwrap();
                        assert_eq!(matches!(stream, Stream::Unix(_)), via == Via::Unix);
                        assert_eq!(exchange(stream, me as u8), peer as u8);
                    }
                }
            })
        };
        for rank in (0..5).map(rank).collect::<Vec<_>>() {
            rank.join().unwrap();
        }
    }

    #[test]
    fn threads_that_wait_at_one_door_each_get_their_own() {
        let (doors, nodes) = doors(2);
        let ranks: Vec<_> = (0..16u64)
            .map(|thread| {
                let (me, communicator) = ((thread % 2) as usize, thread / 2);
                let (door, nodes) = (Arc::clone(&doors[me]), nodes.clone());
                std::thread::spawn(move || {
                    let purpose = Purpose::Link { communicator, channel: 0, via: Via::Unix };
                    let stream = keep(&door, &nodes, 1 - me, purpose).unwrap();
                    assert_eq!(exchange(stream, communicator as u8), communicator as u8);
                })
            })
            .collect();
        for rank in ranks {
            rank.join().unwrap();
        }
    }

    #[test]
    fn silent_and_loud_strangers_do_not_hold_up_an_appointment() {
        let (doors, nodes) = doors(2);
        let knock = || TcpStream::connect(nodes[1].tcp[0]).unwrap();
        let strangers: Vec<TcpStream> = (0..200).map(|_| knock()).collect();
        for mut stranger in &strangers[..100] {
            stranger.write_all(&[0; 1000]).unwrap();
        }
        let (door, cards) = (Arc::clone(&doors[1]), nodes.clone());
        let purpose = Purpose::Link { communicator: 1, channel: 0, via: Via::Tcp };
        let higher = std::thread::spawn(move || keep(&door, &cards, 0, purpose).map(drop));
        keep(&doors[0], &nodes, 1, purpose).unwrap();
        higher.join().unwrap().unwrap();
    }

    #[test]
    fn a_peer_with_another_secret_is_refused() {
        let (doors, nodes) = doors(2);
        let stranger = Door::open("test", 0, 2, Secret::random().unwrap()).unwrap();
        let (door, cards) = (Arc::clone(&doors[1]), nodes.clone());
        let higher = std::thread::spawn(move || keep(&door, &cards, 0, LINK).map(drop));
        assert_eq!(keep(&stranger, &nodes, 1, LINK).err().unwrap().kind(), Kind::Refused);
        keep(&doors[0], &nodes, 1, LINK).unwrap();
        higher.join().unwrap().unwrap();
    }

    #[test]
    fn a_peer_that_has_ended_is_lost_on_either_side() {
        let (mut doors, nodes) = doors(3);
        drop(doors.remove(1));
        assert_eq!(keep(&doors[0], &nodes, 1, LINK).err().unwrap().kind(), Kind::PeerLost);
        assert_eq!(keep(&doors[1], &nodes, 1, LINK).err().unwrap().kind(), Kind::PeerLost);
    }

    #[test]
    fn a_peer_that_does_not_come_in_time_is_said() {
        let (doors, nodes) = doors(2);
        for (me, peer) in [(0, 1), (1, 0)] {
            let soon = Deadline::after(Some(Duration::from_millis(100)));
            let appointment = Appointment { peer, purpose: LINK };
            let error = doors[me].keep(appointment, &nodes[peer], &soon).err().unwrap();
            assert_eq!(error.kind(), Kind::Deadline);
            assert!(error.to_string().contains("within 0.1 s"), "{error}");
        }
    }
}
