//! Meeting at rank 0, the hub: it gathers what the others say and sends all of it to each.
//!
//! A spoke sends its length and bytes; the hub answers with every rank's, or with the reason for which
//! the meeting failed, so that all ranks report the same. Where a job [grows](super::growth), it first gives each spoke
//! its seat.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::Bootstrap;
use super::dial::{dial, within};
use super::growth::Growth;
use super::handshake::{Refusal, WORDS, printable, same_encryption, same_job, same_version};
use super::hello::{Hello, Purpose};
use super::reception::{News, Reception};
use super::secret::{Secret, random};
use super::stream::{Listener, Stream, Trouble, wait};
use super::wire::{Reader, Writer};
use crate::config::{MOST_RANKS, Place};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// The most bytes that one rank may say in one all-gather.
pub(super) const MOST: usize = 1 << 20;
/// What the hub says in place of the first length when the meeting failed.
const FAILED: u32 = u32::MAX;
/// How long a spoke that gave up waits for the hub to say who was missing.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// How often ranks of a growing job look whether those that have not come may still come, and whether they go on waiting.
const PATROL: Duration = Duration::from_millis(200);

/// Who meets, and by what they know each other.
pub(super) struct Party<'a> {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) job: &'a str,
    pub(super) secret: &'a Secret,
    pub(super) encrypt: bool,
    pub(super) deadline: Deadline,
    /// What they meet for; else the job's start.
    pub(super) growth: Option<&'a Growth<'a>>,
}

/// Rank 0's end.
pub(super) struct Hub {
    /// To ranks 1, 2, ...
    spokes: Vec<Stream>,
    generation: u32,
    address: Option<IpAddr>,
    deadline: Deadline,
}

/// Where a rank sits among all, and how often the job had grown by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) generation: u32,
}

/// Any other rank's end.
pub(super) struct Spoke {
    pub(super) seat: Seat,
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
            let mut judge = |hello: &Hello| party.welcome(hello, &mut taken);
            let news = reception.attend(party.secret, &mut judge, &watched, &party.patrol());
            match news.map_err(|error| tell(spokes.iter().flatten(), error))? {
                News::Guests(guests) => {
                    for guest in guests {
                        let here: Vec<bool> = spokes.iter().map(Option::is_some).collect();
                        let place = party.place_of(&guest.hello, &here).expect("it was welcome");
                        let stream = guest.stream.map_err(|error| tell(spokes.iter().flatten(), error));
                        spokes[place] = Some(stream?);
                    }
                }
                News::Odds(why, guests) => {
                    let guests = guests.iter().filter_map(|guest| guest.stream.as_ref().ok());
                    let all = spokes.iter().flatten().chain(guests);
                    return Err(tell(all, Error::new(Kind::Refused, why)));
                }
                News::Late if !party.deadline.passed() => {
                    party.goes_on()?;
                    party.look_after(&here).map_err(|error| tell(spokes.iter().flatten(), error))?;
                }
                News::Late => {
                    let missing = party.missing(&here);
                    let (allowed, refusals) = (within(&party.deadline), reception.refusals());
                    let text = format!("{missing} did not come{allowed}{refusals}");
                    return Err(tell(spokes.iter().flatten(), Error::new(Kind::Deadline, text)));
                }
                News::Gone => {
                    let lost = lost(&spokes);
                    // A newcomer that goes again leaves its place to another.
                    if lost.iter().all(|&rank| rank >= party.known()) {
                        lost.iter().for_each(|rank| spokes[rank - 1] = None);
                        continue;
                    }
                    let (lost, missing) = (name(lost.into_iter()), party.missing(&here));
                    let text = format!("{lost} left before {missing} had come{}", reception.refusals());
                    return Err(tell(spokes.iter().flatten(), Error::new(Kind::PeerLost, text)));
                }
            }
        }
        let (spokes, generation) = (spokes.into_iter().flatten().collect(), party.generation());
        let hub = Self { spokes, generation, address, deadline: party.deadline };
        if generation > 0 {
            hub.give_seats();
        }
        Ok(hub)
    }

    /// Who does not hear of its seat has gone, which shows when it is to say something.
    fn give_seats(&self) {
        for (rank, spoke) in (1..).zip(&self.spokes) {
            let seat = Seat { rank, size: self.size(), generation: self.generation };
            let _ = spoke.write(&seat.encode(), &self.deadline);
        }
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

    fn generation(&self) -> u32 {
        self.generation
    }

    fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl Spoke {
    /// Goes to where rank 0 listens, or will.
    pub(super) fn open(place: &Place, party: &Party<'_>) -> Result<Self> {
        let &Party { rank, size, job, secret, encrypt, deadline, growth } = party;
        let (purpose, patient) = match growth {
            None => (Purpose::Rendezvous, true),
            Some(growth) => (Purpose::Grow { number: growth.number }, false),
        };
        let hello = Hello::new(job, (rank, 0), size, purpose, encrypt, random()?);
        let hub = dial(place, &hello, secret, patient, &deadline)?;
        match growth {
            None => Ok(Self { seat: Seat { rank, size, generation: 0 }, hub, deadline }),
            Some(growth) => Self::seated(hub, deadline, growth.goes_on),
        }
    }

    /// Waits for its seat in a job that grows, as long as this rank goes on.
    pub(super) fn seated(hub: Stream, deadline: Deadline, goes_on: &dyn Fn() -> Result<()>) -> Result<Self> {
        let none = Seat { rank: 0, size: 0, generation: 0 };
        let mut spoke = Self { seat: none, hub, deadline };
        while !deadline.passed()
            && let Err(Trouble::Late) =
                wait(&mut [PollFd::new(&spoke.hub, PollFlags::IN)], patrol(&deadline).left())
        {
            goes_on()?;
        }
        let mut seat = [0; SEAT];
        spoke.read(&mut seat[..4])?;
        spoke.unless_failed(&seat[..4])?;
        spoke.read(&mut seat[4..])?;
        let unreadable = || Error::new(Kind::Refused, "rank 0 gave a seat that cannot be");
        spoke.seat = Seat::decode(&seat).ok_or_else(unreadable)?;
        Ok(spoke)
    }

    /// What the hub says first tells whether the meeting failed.
    fn unless_failed(&self, first: &[u8]) -> Result<()> {
        match first == FAILED.to_le_bytes() {
            true => Err(self.reason(&Deadline::after(Some(GRACE)))),
            false => Ok(()),
        }
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
        self.seat.rank
    }

    fn size(&self) -> usize {
        self.seat.size
    }

    fn generation(&self) -> u32 {
        self.seat.generation
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        check(mine)?;
        let words = Writer::default().u32(mine.len() as u32).raw(mine).done();
        // Where the hub hung up it may have said why before; so reading comes next in any case.
        let _ = self.hub.write(&words, &self.deadline);
        let mut first = [0; 4];
        self.read(&mut first)?;
        self.unless_failed(&first)?;
        let mut lengths = first.to_vec();
        lengths.resize(4 * self.seat.size, 0);
        self.read(&mut lengths[4..])?;
        let mut reader = Reader::new(&lengths);
        let mut all = Vec::with_capacity(self.seat.size);
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

impl Party<'_> {
    /// How many ranks are known beforehand: all but newcomers.
    fn known(&self) -> usize {
        self.growth.map_or(self.size, |growth| growth.members)
    }

    fn generation(&self) -> u32 {
        self.growth.map_or(0, |growth| growth.generation)
    }

    /// How long to attend before a look after those who are missing.
    fn patrol(&self) -> Deadline {
        match self.growth {
            None => self.deadline,
            Some(_) => patrol(&self.deadline),
        }
    }

    /// Whether this rank goes on waiting.
    fn goes_on(&self) -> Result<()> {
        self.growth.map_or(Ok(()), |growth| (growth.goes_on)())
    }

    /// Whether those of ranks 1, 2, ... that are known and not `here` may still come.
    fn look_after(&self, here: &[bool]) -> Result<()> {
        let Some(growth) = self.growth else { return Ok(()) };
        let mut missing = (1..self.known()).filter(|rank| !here[rank - 1]);
        missing.try_for_each(|rank| (growth.may_come)(rank))
    }

    /// Of ranks 1, 2, ..., who is not `here`, in words.
    fn missing(&self, here: &[bool]) -> String {
        let (known, newcomers) = here.split_at(self.known() - 1);
        let (expected, absent) = (newcomers.len(), newcomers.iter().filter(|here| !**here).count());
        match (known.iter().all(|here| *here), absent) {
            (_, 0) => missing(known),
            (true, _) => format!("{absent} of {expected} newcomers"),
            (false, _) => format!("{} and {absent} of {expected} newcomers", missing(known)),
        }
    }

    /// Where among ranks 1, 2, ... somebody sits, if there is such a place: a newcomer takes the first that is free.
    fn place_of(&self, hello: &Hello, taken: &[bool]) -> Option<usize> {
        let first = self.known() - 1;
        match hello.purpose {
            Purpose::Join => taken.iter().skip(first).position(|taken| !taken).map(|place| first + place),
            _ => (hello.from as usize).checked_sub(1).filter(|place| *place < first),
        }
    }

    /// Whether somebody that proved itself may take its place.
    fn welcome(&self, hello: &Hello, taken: &mut [bool]) -> Result<(), Refusal> {
        let (who, size) = (hello.who(), self.size);
        same_job(hello, self.job)?;
        let alike = same_version(hello).and_then(|()| same_encryption(hello, self.encrypt));
        // A newcomer at odds with the others keeps them from nothing: another may come.
        alike.map_err(|odds| Refusal { fatal: hello.purpose != Purpose::Join, ..odds })?;
        match (self.growth, hello.purpose) {
            (None, Purpose::Rendezvous) | (Some(_), Purpose::Join) if hello.to == 0 => {}
            (Some(growth), Purpose::Grow { number }) if hello.to == 0 && number == growth.number => {}
            (Some(_), Purpose::Grow { .. }) => {
                let why =
                    format!("{who} comes from an earlier generation, without which the job has gone on");
                return Err(Refusal::stranger(why));
            }
            (Some(_), Purpose::Rendezvous) => {
                let why =
                    format!("{who} comes for the job's start, which is over: newcomers have KOLO_JOIN=1");
                return Err(Refusal::stranger(why));
            }
            (None, Purpose::Join) => return Err(Refusal::later("the job is still starting")),
            _ => return Err(Refusal::stranger(format!("{who} came to the rendezvous for something else"))),
        }
        if hello.purpose != Purpose::Join && hello.size as usize != size {
            let theirs = hello.size;
            let why = format!("{who} was told that there are {theirs} ranks, rank 0 that there are {size}");
            return Err(Refusal::fatal(why));
        }
        match self.place_of(hello, taken) {
            None if hello.purpose == Purpose::Join => {
                Err(Refusal::later("as many newcomers as are expected have come"))
            }
            None => Err(Refusal::fatal(format!("there is no place for another {who} among {size} ranks"))),
            Some(place) if taken[place] => {
                let why = format!(
                    "two ranks say that they are {who}; if one is left of an earlier start, give each start a \
                     KOLO_JOB of its own"
                );
                Err(Refusal::fatal(why))
            }
            Some(place) => {
                taken[place] = true;
                Ok(())
            }
        }
    }
}

/// The bytes of a seat.
pub(super) const SEAT: usize = 12;

impl Seat {
    pub(super) fn encode(self) -> Vec<u8> {
        Writer::default().u32(self.rank as u32).u32(self.size as u32).u32(self.generation).done()
    }

    /// Of a spoke of a job that grows; nothing where there is no such seat.
    pub(super) fn decode(bytes: &[u8; SEAT]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (rank, size, generation) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()?);
        let there = 0 < rank && rank < size && size <= MOST_RANKS && generation > 0;
        there.then_some(Self { rank, size, generation })
    }
}

/// Until the next look, or the end.
fn patrol(deadline: &Deadline) -> Deadline {
    Deadline::after(Some(deadline.left().map_or(PATROL, |left| left.min(PATROL))))
}

/// Lets every spoke know why the meeting failed.
fn tell<'a>(spokes: impl IntoIterator<Item = &'a Stream>, error: Error) -> Error {
    // What the system refused it refused here.
    let here = if error.kind() == Kind::System { "rank 0: " } else { "" };
    let reason = printable(format!("{here}{error}").as_bytes());
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
fn lost(spokes: &[Option<Stream>]) -> Vec<usize> {
    let hung_up = |spoke: &Stream| {
        let mut fds = [PollFd::new(spoke, PollFlags::RDHUP)];
        wait(&mut fds, Some(Duration::ZERO)).is_ok() && !fds[0].revents().is_empty()
    };
    let gone = |(_, spoke): &(usize, &Option<Stream>)| spoke.as_ref().is_some_and(hung_up);
    (1..).zip(spokes).filter(gone).map(|(rank, _)| rank).collect()
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
