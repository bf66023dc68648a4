//! Where peers knock: listeners, and the proof of the job's secret on every connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::hall::{Appointment, Hall};
use super::hello::{Purpose, Via};
use super::interfaces::addresses;
use super::reception::Reception;
use super::secret::{Secret, hex, random};
use super::stream::{Listener, Stream};
use super::{Connection, Doorway, Node, inquiry, window};
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Report, Stage, Standings};
use crate::transport::Meeting;

/// What the attendant's calls need of a stack is little.
const STACK: usize = 256 << 10;

/// This rank's listeners, and streams to its peers by appointment.
///
/// Of two ranks that are to be linked the lower one dials and the higher one waits. A thread of its own, the
/// **attendant**, asks whoever knocks who it is: for a rank of this job that comes before its link's turn the stream
/// is kept, one that asks where this rank stands is answered, whatever this rank does meanwhile, and a stranger is
/// sent away.
///
/// All communicators of a process share one door, and any thread may wait for a stream there.
pub struct Door {
    hall: Arc<Hall>,
    /// Where processes of this user may look in, until the attendant has it.
    window: Option<Listener>,
    /// Until the attendant has it. Only one thread knows the door until then; the lock lets others share it.
    reception: Mutex<Option<Reception>>,
    /// Its thread, and a stream whose end it takes for the door's.
    attendant: Option<(JoinHandle<()>, UnixStream)>,
    /// The process that began the thread, which has none in those that it forks.
    process: u32,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hall { me, name, .. } = &*self.hall;
        f.debug_struct("Door").field("rank", me).field("name", name).finish_non_exhaustive()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let Some((thread, stream)) = self.attendant.take() else { return };
        drop(stream);
        if self.process == std::process::id() {
            // It does not panic; if it did, nobody is left who could be told.
            let _ = thread.join();
        }
    }
}

impl Door {
    /// Opens the door of rank `me` of `size`, at an abstract UNIX socket with a name that nobody guesses. Who knocks
    /// waits until it is [attended](Self::attend) to.
    ///
    /// # Errors
    /// `System` where no socket can be had.
    pub fn open(job: &str, me: usize, size: usize, secret: Secret) -> Result<Self> {
        let name = format!("kolo-door-{}", hex(&random::<16>()?));
        let listener =
            Listener::unix(&name).map_err(|cause| Error::system("opening a UNIX socket", cause))?;
        let mut reception = Reception::default();
        reception.listen(listener);
        let (job, encrypts, state, delivered) = (job.to_owned(), false, Mutex::default(), Condvar::new());
        let hall = Hall { me, size, job, secret, encrypts, name, state, delivered };
        let (hall, process) = (Arc::new(hall), std::process::id());
        Ok(Self { hall, window: None, reception: Mutex::new(Some(reception)), attendant: None, process })
    }

    /// Lets processes of this user see where this rank stands; see [`Window`](super::Window). Where there is such a
    /// window already, or can be none, the job runs as well without.
    pub fn open_window(&mut self) {
        self.window = window::open(&self.hall.job, self.hall.me).ok();
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
        let hall = Arc::get_mut(&mut self.hall).expect("nobody attends to it yet");
        hall.encrypts = doorway.encrypt;
        let beyond = if loopback { Vec::new() } else { addresses(own, doorway.interfaces)? };
        let (listener, at) = Listener::tcp_at_one(interfaces, doorway.ports)?;
        let (here, bits) = (at.ip(), if at.is_ipv4() { 8 } else { 128 });
        let addresses = if loopback { vec![(here, bits)] } else { beyond };
        let port = at.port();
        let reception = self.reception.get_mut().unwrap_or_else(PoisonError::into_inner);
        reception.as_mut().expect("nobody attends to it yet").listen(listener);
        Ok(addresses.into_iter().map(|(ip, bits)| (SocketAddr::new(ip, port), bits)).collect())
    }

    /// Starts the attendant; who asks is told of these standings.
    ///
    /// # Errors
    /// `System` where there can be no thread.
    pub fn attend(&mut self, standings: Arc<Standings>) -> Result<()> {
        let failed = |cause| Error::system("starting the thread that attends to the door", cause);
        let reception = self.reception.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut reception) = reception.take() else { return Ok(()) };
        if let Some(window) = self.window.take() {
            let (hall, standings) = (Arc::clone(&self.hall), Arc::clone(&standings));
            let show = move || window::encode(&hall.job, hall.size, &standings.reports());
            reception.show(window, Box::new(show));
        }
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let hall = Arc::clone(&self.hall);
        let thread = std::thread::Builder::new().name("kolo-door".into()).stack_size(STACK);
        let thread = thread.spawn(move || hall.attend(reception, &standings, &theirs)).map_err(failed)?;
        self.attendant = Some((thread, ours));
        Ok(())
    }

    /// The name of its abstract UNIX socket.
    pub fn name(&self) -> &str {
        &self.hall.name
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

    /// A TCP stream to the peer, sealed if that is what this rank's user wants.
    ///
    /// # Errors
    /// `PeerLost` where the peer has ended, `Deadline` where it did not come in time.
    pub fn tcp(&self, meeting: &Meeting<'_>) -> Result<Connection> {
        match self.meet(meeting, Via::Tcp)? {
            Stream::Tcp(stream) => Ok(stream),
            Stream::Unix(_) => unreachable!("who comes through a UNIX socket is not let in for a TCP stream"),
        }
    }

    fn meet(&self, meeting: &Meeting<'_>, via: Via) -> Result<Stream> {
        let &Meeting { peer, communicator, origin, channel, node, deadline, .. } = meeting;
        let appointment = Appointment { peer, purpose: Purpose::Link { communicator, origin, channel, via } };
        // Whom that is in the communicator its owner knows.
        self.hall.keep(appointment, node, &deadline)
    }

    /// Where a peer stands on its communicators.
    ///
    /// # Errors
    /// `PeerLost` where it has ended, `Deadline` where it does not answer: it is stopped, or cut off.
    pub fn reports(&self, peer: usize, node: &Node, allowed: Duration) -> Result<Vec<Report>> {
        self.ask(peer, node, Purpose::Reports, allowed, inquiry::decode)
    }

    /// The last calls that a peer has made on a communicator together with its other ranks, as they travel.
    ///
    /// # Errors
    /// As [`Door::reports`].
    pub fn calls(
        &self,
        peer: usize,
        node: &Node,
        communicator: u64,
        allowed: Duration,
    ) -> Result<Vec<[u64; 4]>> {
        self.ask(peer, node, Purpose::Calls { communicator }, allowed, inquiry::decode_calls)
    }

    /// Why a peer will not call any more on a communicator that was made of `origin`, if so.
    ///
    /// # Errors
    /// `System` where this rank can open no socket to ask it.
    pub fn has_left(
        &self,
        peer: usize,
        node: &Node,
        (communicator, origin): (u64, u64),
    ) -> Result<Option<&'static str>> {
        self.hall.is_gone(peer, node, (communicator, origin))
    }

    /// Has a peer write down what it did last, if it is to write that anywhere.
    ///
    /// # Errors
    /// As [`Door::reports`].
    pub fn record(&self, peer: usize, node: &Node, allowed: Duration) -> Result<()> {
        self.ask(peer, node, Purpose::Record, allowed, |_| Some(()))
    }

    /// This rank is in a communicator.
    pub fn enter(&self, communicator: u64) {
        self.hall.enter(communicator);
    }

    /// This rank has left a communicator: nobody needs to wait for its links any more.
    pub fn leave(&self, communicator: u64) {
        self.hall.leave(communicator);
    }

    /// How far a peer is in agreeing on who is left of a communicator.
    ///
    /// # Errors
    /// As [`Door::reports`].
    pub fn stage(&self, peer: usize, node: &Node, communicator: u64, allowed: Duration) -> Result<Stage> {
        let size = self.hall.size;
        let decode = |bytes: &[u8]| inquiry::decode_stage(bytes, size);
        self.ask(peer, node, Purpose::Stage { communicator }, allowed, decode)
    }

    fn ask<T>(
        &self,
        peer: usize,
        node: &Node,
        purpose: Purpose,
        allowed: Duration,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let answer = self.hall.ask(peer, node, purpose, &Deadline::after(Some(allowed)));
        let refused = || Error::new(Kind::Refused, "its answer cannot be read");
        answer.and_then(|bytes| decode(&bytes).ok_or_else(refused))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::super::hall::FIRST_PROBE;
    use super::*;
    use crate::health::Peers;

    const LINK: Purpose = Purpose::Link { communicator: 7, origin: 6, channel: 0, via: Via::Unix };
    const LONG: Duration = Duration::from_secs(60);

    fn open(me: usize, size: usize, secret: Secret) -> Door {
        Door::open("test", me, size, secret).unwrap()
    }

    fn doors(size: usize) -> (Vec<Arc<Door>>, Vec<Node>) {
        doors_of(&vec![Arc::default(); size], &vec![false; size])
    }

    /// A door for each rank, which stands so, and encrypts or does not.
    fn doors_of(standings: &[Arc<Standings>], encrypt: &[bool]) -> (Vec<Arc<Door>>, Vec<Node>) {
        let size = standings.len();
        let secret = Secret::random().unwrap();
        let mut doors: Vec<Door> = (0..size).map(|me| open(me, size, secret.clone())).collect();
        let card = |(door, (standings, &encrypt)): (&mut Door, (&Arc<Standings>, &bool))| {
            let doorway = Doorway { ports: &(0..=0), interfaces: None, encrypt };
            let (tcp, networks) = door.open_tcp(true, None, doorway).unwrap().into_iter().unzip();
            door.attend(Arc::clone(standings)).unwrap();
            Node { tcp, networks, ..Node::here(door) }
        };
        let nodes = doors.iter_mut().zip(standings.iter().zip(encrypt)).map(card).collect();
        (doors.into_iter().map(Arc::new).collect(), nodes)
    }

    fn keep(door: &Door, nodes: &[Node], peer: usize, purpose: Purpose) -> Result<Stream> {
        door.hall.keep(Appointment { peer, purpose }, &nodes[peer], &Deadline::after(Some(LONG)))
    }

    /// Sends a word through a stream and expects the peer's.
    fn exchange(stream: Stream, word: u8) -> u8 {
        let mut heard = [0];
        let soon = Deadline::after(Some(LONG));
        stream.write(&[word], &soon).unwrap();
        stream.read(&mut heard, &soon).unwrap();
        heard[0]
    }

    #[test]
    fn all_pairs_meet_by_both_ways_in_ascending_order() {
        all_pairs_meet(false);
    }

    #[test]
    fn all_pairs_meet_with_sealed_connections() {
        all_pairs_meet(true);
    }

    fn all_pairs_meet(encrypt: bool) {
        let (doors, nodes) = doors_of(&[(); 5].map(|()| Arc::default()), &[encrypt; 5]);
        let rank = |me: usize| {
            let (door, nodes) = (Arc::clone(&doors[me]), nodes.clone());
            std::thread::spawn(move || {
                for peer in (0..5).filter(|&peer| peer != me) {
                    for (channel, via) in [(0, Via::Unix), (0, Via::Tcp), (1, Via::Unix)] {
                        let purpose = Purpose::Link { communicator: 1, origin: 1, channel, via };
                        let stream = keep(&door, &nodes, peer, purpose).unwrap();
                        assert_eq!(matches!(stream, Stream::Unix(_)), via == Via::Unix);
                        let sealed = matches!(stream, Stream::Tcp(Connection::Sealed(_)));
                        assert_eq!(sealed, encrypt && via == Via::Tcp);
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
                    let purpose = Purpose::Link { communicator, origin: 0, channel: 0, via: Via::Unix };
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
        let purpose = Purpose::Link { communicator: 1, origin: 1, channel: 0, via: Via::Tcp };
        let higher = std::thread::spawn(move || keep(&door, &cards, 0, purpose).map(drop));
        keep(&doors[0], &nodes, 1, purpose).unwrap();
        higher.join().unwrap().unwrap();
    }

    #[test]
    fn a_peer_with_another_secret_is_refused() {
        let (doors, nodes) = doors(2);
        let stranger = open(0, 2, Secret::random().unwrap());
        let (door, cards) = (Arc::clone(&doors[1]), nodes.clone());
        let higher = std::thread::spawn(move || keep(&door, &cards, 0, LINK).map(drop));
        assert_eq!(keep(&stranger, &nodes, 1, LINK).err().unwrap().kind(), Kind::Refused);
        keep(&doors[0], &nodes, 1, LINK).unwrap();
        higher.join().unwrap().unwrap();
    }

    #[test]
    fn a_peer_that_does_not_encrypt_is_refused() {
        for which in [[true, false], [false, true]] {
            let (doors, nodes) = doors_of(&[Arc::default(), Arc::default()], &which);
            let purpose = Purpose::Link { communicator: 1, origin: 1, channel: 0, via: Via::Tcp };
            let (door, cards) = (Arc::clone(&doors[1]), nodes.clone());
            let higher = std::thread::spawn(move || keep(&door, &cards, 0, purpose).err().unwrap());
            let lower = keep(&doors[0], &nodes, 1, purpose).err().unwrap();
            let (on, off) = if which[0] { (0, 1) } else { (1, 0) };
            let said = format!("rank {on} has KOLO_ENCRYPT=1, rank {off} has not: set it alike on all ranks");
            for error in [lower, higher.join().unwrap()] {
                assert_eq!((error.kind(), error.to_string()), (Kind::Refused, said.clone()));
            }
        }
    }

    #[test]
    fn who_comes_for_links_that_were_left_finds_the_streams_end() {
        // Left, or never made, since it failed in the call that makes it.
        for (late, which) in [(false, 7), (true, 7), (false, 6), (true, 6)] {
            let (doors, nodes) = self::doors(2);
            if late {
                doors[1].leave(which);
            }
            let stream = keep(&doors[0], &nodes, 1, LINK).unwrap();
            doors[1].leave(which);
            assert!(stream.read(&mut [0], &Deadline::after(Some(LONG))).is_err());
        }
    }

    #[test]
    fn who_waits_for_one_that_never_came_to_the_communicator_is_told() {
        let (doors, nodes) = doors(2);
        std::thread::scope(|scope| {
            let higher = scope.spawn(|| keep(&doors[1], &nodes, 0, LINK).err().unwrap());
            // It failed in the call that makes it; others may have been quicker.
            doors[0].leave(6);
            let error = higher.join().unwrap();
            assert_eq!(error.kind(), Kind::PeerLost);
            assert!(error.to_string().contains("has left the communicator"), "{error}");
        });
    }

    #[test]
    fn others_that_knock_keep_nobody_from_hearing_that_a_peer_has_gone() {
        let (doors, nodes) = doors(3);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| keep(&doors[1], &nodes, 0, LINK).err().unwrap());
            // One that wonders, too, asks more often than this one looks.
            while !waits.is_finished() {
                if doors[2].reports(1, &nodes[1], LONG).is_ok() {
                    doors[0].leave(7);
                }
                std::thread::sleep(FIRST_PROBE / 4);
            }
            assert_eq!(waits.join().unwrap().kind(), Kind::PeerLost);
        });
    }

    #[test]
    fn a_peer_that_has_ended_is_lost_on_either_side() {
        let (mut doors, nodes) = doors(3);
        drop(doors.remove(1));
        assert_eq!(keep(&doors[0], &nodes, 1, LINK).err().unwrap().kind(), Kind::PeerLost);
        assert_eq!(keep(&doors[1], &nodes, 1, LINK).err().unwrap().kind(), Kind::PeerLost);
    }

    #[test]
    fn who_was_let_in_is_found_whenever_it_ends() {
        let (doors, nodes) = doors(2);
        let come_and_go = |communicator| {
            let purpose = Purpose::Link { communicator, origin: 0, channel: 0, via: Via::Unix };
            // In, as far as it knows: what is still to be done here may take as long as it likes.
            drop(keep(&doors[0], &nodes, 1, purpose).unwrap());
            doors[1].hall.catch_up();
            let appointment = Appointment { peer: 0, purpose };
            assert!(doors[1].hall.lock().mailbox.contains_key(&appointment), "stream {communicator}");
        };
        // Who knocks together with others is told so before the last of them is.
        std::thread::scope(|scope| {
            for first in (0..640).step_by(20) {
                let come_and_go = &come_and_go;
                scope.spawn(move || (first..first + 20).for_each(come_and_go));
            }
        });
    }

    #[test]
    fn a_peer_that_does_not_come_in_time_is_said() {
        let (doors, mut nodes) = doors(2);
        // A door that nobody attends to, as that of a process that is stopped.
        let stopped = open(1, 2, Secret::random().unwrap());
        nodes[1] = Node::here(&stopped);
        for (me, peer) in [(0, 1), (1, 0)] {
            let soon = Deadline::after(Some(Duration::from_millis(100)));
            let appointment = Appointment { peer, purpose: LINK };
            let error = doors[me].hall.keep(appointment, &nodes[peer], &soon).err().unwrap();
            assert_eq!(error.kind(), Kind::Deadline);
            assert!(error.to_string().contains("within 0.1 s"), "{error}");
        }
        let error = doors[0].reports(1, &nodes[1], Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
    }

    #[test]
    fn who_asks_is_told_where_a_rank_stands_whatever_it_does() {
        let all: [Arc<Standings>; 3] = Default::default();
        all[2].enter(5, Arc::new([])).begin(17, &[5, 17, 0, 0], Peers::new(None, None));
        // Nobody waits at rank 2's door; lower and higher ranks may ask at others.
        let (doors, nodes) = doors_of(&all, &[true; 3]);
        for (me, peer, begun) in [(0, 2, Some(17)), (2, 0, None), (1, 2, Some(17))] {
            let reports = doors[me].reports(peer, &nodes[peer], LONG).unwrap();
            assert_eq!(reports.first().map(|report| report.begun), begun);
            let by_tcp = Node { door: "kolo-nobody".into(), ..nodes[peer].clone() };
            assert_eq!(doors[me].reports(peer, &by_tcp, LONG).unwrap(), reports);
        }
        let stranger = open(0, 3, Secret::random().unwrap());
        assert_eq!(stranger.reports(2, &nodes[2], LONG).unwrap_err().kind(), Kind::Refused);
    }
}
