//! Meeting at rank 0, the hub: it gathers what the others say and sends all of it to each.
//!
//! A spoke sends its length and bytes; the hub answers with every rank's, or with the reason for which
//! the meeting failed, so that all ranks report the same.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::Bootstrap;
use super::dial::{dial, within};
use super::handshake::{Hello, Purpose, Refusal, WORDS, printable, same_encryption, same_job, same_version};
use super::reception::{News, Reception};
use super::secret::{Secret, random};
use super::stream::{Listener, Stream, Trouble, wait};
use super::wire::{Reader, Writer};
use crate::config::Place;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// The most bytes that one rank may say in one all-gather.
pub(super) const MOST: usize = 1 << 20;
/// What the hub says in place of the first length when the meeting failed.
const FAILED: u32 = u32::MAX;
/// How long a spoke that gave up waits for the hub to say who was missing.
const GRACE: Duration = Duration::from_secs(1);

/// Who meets, and by what they know each other.
pub(super) struct Party<'a> {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) job: &'a str,
    pub(super) secret: &'a Secret,
    pub(super) encrypt: bool,
    pub(super) deadline: Deadline,
}

/// Rank 0's end.
pub(super) struct Hub {
    /// To ranks 1, 2, ...
    spokes: Vec<Stream>,
    address: Option<IpAddr>,
    deadline: Deadline,
}

/// Any other rank's end.
pub(super) struct Spoke {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) hub: Stream,
    pub(super) deadline: Deadline,
}

impl Hub {
    /// Waits at `listener` until all have come.
    pub(super) fn open(listener: Listener, party: &Party<'_>) -> Result<Self> {
        let mut spokes: Vec<Option<Stream>> = (1..party.size).map(|_| None).collect();
        let address = listener.address().map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
        let mut reception = Reception::default();
        reception.listen(listener);
        while spokes.iter().any(Option::is_none) {
            let here: Vec<bool> = spokes.iter().map(Option::is_some).collect();
            let watched: Vec<BorrowedFd<'_>> = spokes.iter().flatten().map(AsFd::as_fd).collect();
            // Two connections of one rank may arrive in one go: the first of them takes the place.
            let mut taken = here.clone();
            let mut judge = |hello: &Hello| welcome(hello, party, &mut taken);
            match reception.attend(party.secret, &mut judge, &watched, &party.deadline)? {
                News::Guests(guests) => {
                    for guest in guests {
                        spokes[guest.hello.from as usize - 1] = Some(guest.stream);
                    }
                }
                News::Odds(why, guests) => {
                    let all = spokes.iter().flatten().chain(guests.iter().map(|guest| &guest.stream));
                    return Err(tell(all, Error::new(Kind::Refused, why)));
                }
                News::Late => {
                    let missing = missing(&here);
                    let (allowed, refusals) = (within(&party.deadline), reception.refusals());
                    let text = format!("{missing} did not come{allowed}{refusals}");
                    return Err(tell(spokes.iter().flatten(), Error::new(Kind::Deadline, text)));
                }
                News::Gone => {
                    let lost = lost(&spokes);
                    let missing = missing(&here);
                    let text = format!("{lost} left before {missing} had come{}", reception.refusals());
                    return Err(tell(spokes.iter().flatten(), Error::new(Kind::PeerLost, text)));
                }
            }
        }
        Ok(Self { spokes: spokes.into_iter().flatten().collect(), address, deadline: party.deadline })
    }

    /// What each spoke says, or why that failed.
    fn gather(&self) -> Result<Vec<Vec<u8>>> {
        let mut inboxes: Vec<Inbox> = self.spokes.iter().map(|_| Inbox::default()).collect();
        loop {
            for (index, (inbox, stream)) in inboxes.iter_mut().zip(&self.spokes).enumerate() {
                inbox.read(stream).map_err(|trouble| failed(index + 1, trouble))?;
            }
            if inboxes.iter().all(Inbox::complete) {
                return Ok(inboxes.into_iter().map(|inbox| inbox.bytes).collect());
            }
            let events = |inbox: &Inbox| if inbox.complete() { PollFlags::RDHUP } else { PollFlags::IN };
            let spokes = self.spokes.iter().zip(&inboxes);
            let mut fds: Vec<_> = spokes.map(|(spoke, inbox)| PollFd::new(spoke, events(inbox))).collect();
            match wait(&mut fds, self.deadline.left()) {
                Ok(()) => {}
                Err(Trouble::Late) => {
                    let here: Vec<bool> = inboxes.iter().map(Inbox::complete).collect();
                    let text = format!("{} said nothing{}", missing(&here), within(&self.deadline));
                    return Err(Error::new(Kind::Deadline, text));
                }
                Err(trouble) => return Err(failed(0, trouble)),
            }
            let gone = |(fd, inbox): &(&PollFd<'_>, &Inbox)| inbox.complete() && !fd.revents().is_empty();
            if let Some(index) = fds.iter().zip(&inboxes).position(|pair| gone(&pair)) {
                return Err(failed(index + 1, Trouble::Closed));
            }
        }
    }
}

impl Bootstrap for Hub {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.spokes.len() + 1
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        check(mine)?;
        let mut all = self.gather().map_err(|error| tell(&self.spokes, error))?;
        all.insert(0, mine.to_vec());
        let mut answer = Writer::default();
        for bytes in &all {
            answer = answer.u32(bytes.len() as u32);
        }
        for bytes in &all {
            answer = answer.raw(bytes);
        }
        let answer = answer.done();
        for (index, spoke) in self.spokes.iter().enumerate() {
            if let Err(trouble) = spoke.write(&answer, &self.deadline) {
                return Err(tell(&self.spokes[index + 1..], failed(index + 1, trouble)));
            }
        }
        Ok(all)
    }

    fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl Spoke {
    /// Goes to where rank 0 listens, or will.
    pub(super) fn open(place: &Place, party: &Party<'_>) -> Result<Self> {
        let &Party { rank, size, job, secret, encrypt, deadline } = party;
        let hello = Hello::new(job, (rank, 0), size, Purpose::Rendezvous, encrypt, random()?);
        let hub = dial(place, &hello, secret, true, &deadline)?;
        Ok(Self { rank, size, hub, deadline })
    }

    fn read(&self, into: &mut [u8]) -> Result<()> {
        match self.hub.read(into, &self.deadline) {
            Ok(()) => Ok(()),
            Err(Trouble::Late) => Err(self.ask_why()),
            Err(trouble) => Err(failed(0, trouble)),
        }
    }

    /// Lets the hub see that this rank gives up, which makes it say who is missing.
    fn ask_why(&self) -> Error {
        let _ = rustix::net::shutdown(&self.hub, rustix::net::Shutdown::Write);
        let grace = Deadline::after(Some(GRACE));
        let mut first = [0; 4];
        match self.hub.read(&mut first, &grace) {
            Ok(()) if u32::from_le_bytes(first) == FAILED => self.reason(&grace),
            _ => Error::new(Kind::Deadline, format!("rank 0 did not answer{}", within(&self.deadline))),
        }
    }

    /// Why the hub says that the meeting failed.
    fn reason(&self, deadline: &Deadline) -> Error {
        let mut head = [0; 3];
        if let Err(trouble) = self.hub.read(&mut head, deadline) {
            return failed(0, trouble);
        }
        let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(WORDS);
        let mut text = vec![0; len];
        match self.hub.read(&mut text, deadline) {
            Ok(()) => Error::new(kind_of(head[0]), printable(&text)),
            Err(trouble) => failed(0, trouble),
        }
    }
}

impl Bootstrap for Spoke {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        check(mine)?;
        let words = Writer::default().u32(mine.len() as u32).raw(mine).done();
        // Where the hub hung up it may have said why before; so reading comes next in any case.
        let _ = self.hub.write(&words, &self.deadline);
        let mut first = [0; 4];
        self.read(&mut first)?;
        if u32::from_le_bytes(first) == FAILED {
            return Err(self.reason(&Deadline::after(Some(GRACE))));
        }
        let mut lengths = first.to_vec();
        lengths.resize(4 * self.size, 0);
        self.read(&mut lengths[4..])?;
        let mut reader = Reader::new(&lengths);
        let mut all = Vec::with_capacity(self.size);
        while let Some(len) = reader.u32() {
            let mut bytes = vec![0; bounded(len).ok_or_else(|| too_long(0))?];
            all.push(std::mem::take(&mut bytes));
        }
        for bytes in &mut all {
            self.read(bytes)?;
        }
        Ok(all)
    }

    fn address(&self) -> Option<IpAddr> {
        match &self.hub {
            Stream::Tcp(stream) => stream.socket().local_addr().ok().map(|address| address.ip()),
            Stream::Unix(_) => None,
        }
    }
}

/// A spoke's words as they come.
#[derive(Default)]
pub(super) struct Inbox {
    head: [u8; 4],
    /// How many bytes have come, with the head's.
    come: usize,
    pub(super) bytes: Vec<u8>,
}

impl Inbox {
    pub(super) fn complete(&self) -> bool {
        self.come >= 4 && self.come - 4 == self.bytes.len()
    }

    pub(super) fn read(&mut self, stream: &Stream) -> Result<(), Trouble> {
        while !self.complete() {
            let room =
                if self.come < 4 { &mut self.head[self.come..] } else { &mut self.bytes[self.come - 4..] };
            let Some(count) = stream.try_read(room)? else { return Ok(()) };
            self.come += count;
            if self.come == 4 {
                let len = bounded(u32::from_le_bytes(self.head));
                let text = "it sent a length out of bounds";
                self.bytes = vec![0; len.ok_or_else(|| Trouble::Os(std::io::Error::other(text)))?];
            }
        }
        Ok(())
    }
}

/// Whether a rank that proved itself may take its place.
fn welcome(hello: &Hello, party: &Party<'_>, taken: &mut [bool]) -> Result<(), Refusal> {
    let (from, size) = (hello.from, party.size);
    same_job(hello, party.job)?;
    same_version(hello)?;
    same_encryption(hello, party.encrypt)?;
    if hello.purpose != Purpose::Rendezvous || hello.to != 0 {
        return Err(Refusal::stranger(format!("rank {from} came to the rendezvous for something else")));
    }
    if hello.size as usize != size {
        let theirs = hello.size;
        let why = format!("rank {from} was told that there are {theirs} ranks, rank 0 that there are {size}");
        return Err(Refusal::fatal(why));
    }
    match (from as usize).checked_sub(1).and_then(|index| taken.get_mut(index)) {
        None => Err(Refusal::fatal(format!("there is no place for another rank {from} among {size} ranks"))),
        Some(true) => {
            let why = format!(
                "two ranks say that they are rank {from}; if one is left of an earlier start, give each start a \
                 KOLO_JOB of its own"
            );
            Err(Refusal::fatal(why))
        }
        Some(free) => {
            *free = true;
            Ok(())
        }
    }
}

/// Lets every spoke know why the meeting failed.
fn tell<'a>(spokes: impl IntoIterator<Item = &'a Stream>, error: Error) -> Error {
    let reason = printable(error.to_string().as_bytes());
    let code = KINDS.iter().position(|&kind| kind == error.kind()).unwrap_or(0);
    let words = Writer::default().u32(FAILED).u8(code as u8).text(&reason).done();
    for spoke in spokes {
        let _ = spoke.try_write(&words);
    }
    error
}

/// The kinds of failure that a hub tells of; their places are their codes.
const KINDS: [Kind; 4] = [Kind::System, Kind::Deadline, Kind::PeerLost, Kind::Refused];

fn kind_of(code: u8) -> Kind {
    KINDS.get(usize::from(code)).copied().unwrap_or(Kind::System)
}

pub(super) fn check(mine: &[u8]) -> Result<()> {
    if mine.len() > MOST {
        let len = mine.len();
        return Err(Error::usage(format!(
            "{len} bytes are too many for a bootstrap's all-gather: at most {MOST}"
        )));
    }
    Ok(())
}

fn bounded(len: u32) -> Option<usize> {
    Some(len as usize).filter(|&len| len <= MOST)
}

fn too_long(rank: usize) -> Error {
    Error::new(Kind::Refused, format!("rank {rank} sent a length out of bounds"))
}

fn failed(rank: usize, trouble: Trouble) -> Error {
    match trouble {
        Trouble::Closed => {
            Error::new(Kind::PeerLost, format!("rank {rank} left while the ranks were meeting"))
        }
        Trouble::Late => Error::new(Kind::Deadline, format!("rank {rank} takes nothing")),
        Trouble::Os(cause) => Error::system(format!("exchanging with rank {rank}"), cause),
    }
}

/// Of ranks 1, 2, ..., those not `here`: `rank 3`, or `ranks 3, 5`.
fn missing(here: &[bool]) -> String {
    name((1..).zip(here).filter(|(_, here)| !**here).map(|(rank, _)| rank))
}

/// Of ranks 1, 2, ..., those that came and hung up.
fn lost(spokes: &[Option<Stream>]) -> String {
    let hung_up = |spoke: &Stream| {
        let mut fds = [PollFd::new(spoke, PollFlags::RDHUP)];
        wait(&mut fds, Some(Duration::ZERO)).is_ok() && !fds[0].revents().is_empty()
    };
    name((1..).zip(spokes).filter(|(_, spoke)| spoke.as_ref().is_some_and(hung_up)).map(|(rank, _)| rank))
}

/// `rank 3`, or `ranks 3, 5`; of many, the first few.
pub(super) fn name(ranks: impl Iterator<Item = usize>) -> String {
    const SHOWN: usize = 8;
    let ranks: Vec<usize> = ranks.collect();
    let shown: Vec<String> = ranks.iter().take(SHOWN).map(usize::to_string).collect();
    let plural = if ranks.len() == 1 { "rank" } else { "ranks" };
    let more = if ranks.len() > SHOWN { format!(" and {} more", ranks.len() - SHOWN) } else { String::new() };
    format!("{plural} {}{more}", shown.join(", "))
}
