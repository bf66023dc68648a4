//! Who knocks is asked who it is: many at once, each for a bounded time, none holding up another.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::handshake::{Refusal, Reply, Waiter};
use super::hello::{HELLO, Hello};
use super::inquiry;
use super::seal::Session;
use super::secret::{Secret, random};
use super::stream::{Listener, Stream, Trouble, wait};
use crate::error::{Error, Result};
use crate::health::Deadline;

/// How many may be asked at once.
const PLACES: usize = 256;
/// How long a stranger may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take while others wait for its place.
const PATIENCE_WHEN_FULL: Duration = Duration::from_millis(200);
/// How many descriptors are kept for those who knock when no more can be had.
const SPARES: usize = 2;
/// How many are shown something before somebody else's turn comes.
const CALLERS: usize = 16;
/// How many refusals are remembered, for the error that says who is missing.
const REMEMBERED: usize = 4;

/// Listeners, and those who knocked and have not yet proved who they are.
pub(super) struct Reception {
    listeners: Vec<Listener>,
    window: Option<(Listener, Show)>,
    strangers: Vec<Stranger>,
    /// Descriptors for nothing: where this process may open no more, who knocks is still heard, in their places. Who
    /// only asks is answered; whose stream would have to be kept is told why it cannot.
    spares: Vec<OwnedFd>,
    /// How long a stranger may take.
    patience: Duration,
    /// When somebody attended last.
    attended: Instant,
    refusals: Vec<String>,
    refused: usize,
}

/// What who looks in is to see.
pub(super) type Show = Box<dyn Fn() -> Vec<u8> + Send>;

struct Stranger {
    stream: Stream,
    since: Instant,
    waiter: Waiter,
}

/// Somebody who has proved to be a rank.
pub(super) struct Guest {
    /// Or why it cannot be kept.
    pub(super) stream: Result<Stream>,
    pub(super) hello: Hello,
}

/// Why [`Reception::attend`] came back.
pub(super) enum News {
    /// These came in.
    Guests(Vec<Guest>),
    /// A rank came that the others cannot go together with; these came in beside it.
    Odds(String, Vec<Guest>),
    /// The other side of one of the watched streams is gone.
    Gone,
    /// The deadline passed.
    Late,
}

impl Default for Reception {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            window: None,
            strangers: Vec::new(),
            spares: Vec::new(),
            patience: PATIENCE,
            attended: Instant::now(),
            refusals: Vec::new(),
            refused: 0,
        }
    }
}

impl Reception {
    pub(super) fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
        self.provide();
    }

    /// Sees to it that there are spare descriptors, as far as they can be had.
    fn provide(&mut self) {
        let Some(any) = self.listeners.first() else { return };
        while self.spares.len() < SPARES
            && let Ok(spare) = fcntl_dupfd_cloexec(any, 0)
        {
            self.spares.push(spare);
        }
    }

    /// Whether nobody else can be asked before one of those that are has gone.
    fn is_full(&self) -> bool {
        self.strangers.len() == PLACES || self.spares.is_empty() && !self.strangers.is_empty()
    }

    /// Shows that to any process of this user that calls there.
    pub(super) fn show(&mut self, window: Listener, what: Show) {
        self.window = Some((window, what));
    }

    /// Attends to who knocks until somebody is in, or one of `watched` is hung up at its other end.
    /// `judge` says why a rank that proved itself is not welcome.
    pub(super) fn attend(
        &mut self,
        secret: &Secret,
        judge: &mut dyn FnMut(&Hello) -> Result<(), Refusal>,
        watched: &[BorrowedFd<'_>],
        deadline: &Deadline,
    ) -> Result<News> {
        // Nobody was asked anything while nobody attended: that time does not count. What it took before does: whoever
        // attends comes back with each rank that is let in.
        let away = self.attended.elapsed();
        self.strangers.iter_mut().for_each(|stranger| stranger.since += away);
        let news = self.ask(secret, judge, watched, deadline);
        self.attended = Instant::now();
        news
    }

    fn ask(
        &mut self,
        secret: &Secret,
        judge: &mut dyn FnMut(&Hello) -> Result<(), Refusal>,
        watched: &[BorrowedFd<'_>],
        deadline: &Deadline,
    ) -> Result<News> {
        loop {
            self.provide();
            self.accept()?;
            match self.listen_to_all(secret, judge) {
                News::Guests(guests) if guests.is_empty() => {}
                news => return Ok(news),
            }
            self.answer_callers()?;
            if deadline.passed() {
                return Ok(News::Late);
            }
            if self.sleep(watched, deadline)? {
                return Ok(News::Gone);
            }
        }
    }

    /// What came of those who were refused, for an error about one who is missing.
    pub(super) fn refusals(&self) -> String {
        match self.refused {
            0 => String::new(),
            1 => format!("; somebody was refused, who {}", self.refusals.join("")),
            count => format!("; {count} were refused, the first of whom {}", self.refusals.join(", then ")),
        }
    }

    fn accept(&mut self) -> Result<()> {
        for index in 0..self.listeners.len() {
            while self.make_place() {
                let stream = match admit(&self.listeners[index], &mut self.spares) {
                    Ok(Some(stream)) => stream,
                    Ok(None) => break,
                    Err(cause) if no_descriptors(&cause) && !self.strangers.is_empty() => break,
                    Err(cause) => return Err(Error::system("accepting a connection", cause)),
                };
                let waiter = Waiter::new(random()?, stream.over_network());
                self.strangers.push(Stranger { stream, since: Instant::now(), waiter });
            }
        }
        Ok(())
    }

    /// Who calls is told at once, and listens or does not.
    fn answer_callers(&mut self) -> Result<()> {
        for _ in 0..CALLERS {
            self.provide();
            let Some((window, show)) = &self.window else { return Ok(()) };
            match admit(window, &mut self.spares) {
                Ok(Some(stream)) => inquiry::answer(&stream, &show()),
                Ok(None) => break,
                Err(cause) => return Err(Error::system("accepting a connection", cause)),
            }
        }
        Ok(())
    }

    /// Whether one more may be asked; when all places are taken, whoever dawdles longest loses its own.
    fn make_place(&mut self) -> bool {
        let before = self.strangers.len();
        self.strangers.retain(|stranger| stranger.since.elapsed() < self.patience);
        (self.strangers.len()..before).for_each(|_| self.note(dawdled(self.patience)));
        if self.is_full() && self.strangers[0].since.elapsed() > PATIENCE_WHEN_FULL {
            self.strangers.remove(0);
            self.note(dawdled(PATIENCE_WHEN_FULL));
            self.provide();
        }
        !self.is_full()
    }

    /// Somebody was refused, who did that.
    fn note(&mut self, why: String) {
        self.refused += 1;
        if self.refusals.len() < REMEMBERED {
            self.refusals.push(why);
        }
    }

    fn listen_to_all(
        &mut self,
        secret: &Secret,
        judge: &mut dyn FnMut(&Hello) -> Result<(), Refusal>,
    ) -> News {
        let (mut guests, mut turned_away) = (Vec::new(), Vec::new());
        let mut odds = None;
        let short = self.spares.len() < SPARES;
        let mut judge = |hello: &Hello| {
            judge(hello)?;
            match short && hello.purpose.stays() {
                false => Ok(()),
                true => {
                    turned_away.push(hello.clone());
                    Err(Refusal::stranger(format!("rank {} may open no more streams (ulimit -n)", hello.to)))
                }
            }
        };
        for mut stranger in std::mem::take(&mut self.strangers) {
            match stranger.hear(secret, &mut judge) {
                Heard::Undecided => self.strangers.push(stranger),
                Heard::Rank(hello, session) => {
                    guests.push(Guest { stream: Ok(stranger.stream.sealed(session)), hello });
                }
                Heard::Nobody(None) => {}
                Heard::Nobody(Some(Refusal { why, fatal: true, .. })) => odds = Some(why),
                Heard::Nobody(Some(Refusal { later: true, .. })) => {}
                Heard::Nobody(Some(Refusal { why, .. })) => self.note(why),
            }
        }
        let kept_out = |hello| Guest { stream: Err(no_more_streams()), hello };
        guests.extend(turned_away.into_iter().map(kept_out));
        match odds {
            None => News::Guests(guests),
            Some(why) => News::Odds(why, guests),
        }
    }

    /// Sleeps until something stirs; whether a watched stream was hung up.
    fn sleep(&self, watched: &[BorrowedFd<'_>], deadline: &Deadline) -> Result<bool> {
        let full = self.is_full();
        let patience = if full { PATIENCE_WHEN_FULL } else { self.patience };
        let expiry = self.strangers.first().map(|first| patience.saturating_sub(first.since.elapsed()));
        let expiry = expiry.map(|left| left + Duration::from_millis(1));
        let left = [deadline.left(), expiry].into_iter().flatten().min();
        let mut fds: Vec<_> = watched.iter().map(|fd| PollFd::new(fd, PollFlags::RDHUP)).collect();
        if !full {
            fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        fds.extend(self.window.iter().map(|(window, _)| PollFd::new(window, PollFlags::IN)));
        fds.extend(self.strangers.iter().map(|stranger| PollFd::new(&stranger.stream, PollFlags::IN)));
        match wait(&mut fds, left) {
            Ok(()) => Ok(fds[..watched.len()].iter().any(|fd| !fd.revents().is_empty())),
            Err(Trouble::Os(cause)) => Err(Error::system("waiting for connections", cause)),
            Err(Trouble::Late | Trouble::Closed) => Ok(false),
        }
    }
}

enum Heard {
    Undecided,
    Rank(Hello, Option<Session>),
    /// Not welcome; a mere look at the door leaves no note.
    Nobody(Option<Refusal>),
}

impl Stranger {
    fn hear(&mut self, secret: &Secret, judge: &mut dyn FnMut(&Hello) -> Result<(), Refusal>) -> Heard {
        let mut buffer = [0; HELLO];
        loop {
            let room = self.waiter.wants().min(HELLO);
            let count = match self.stream.try_read(&mut buffer[..room]) {
                Ok(Some(count)) => count,
                Ok(None) => return Heard::Undecided,
                Err(_) => return Heard::Nobody(None),
            };
            let (words, outcome) = match self.waiter.hear(&buffer[..count], secret, judge) {
                Reply::Listen => continue,
                Reply::Say(words) => (words, Heard::Undecided),
                Reply::Admit(words, hello, session) => (words, Heard::Rank(hello, session)),
                Reply::Refuse(words, why) => (words, Heard::Nobody(Some(why))),
            };
            // These few bytes always fit into a fresh socket's buffer.
            if !matches!(self.stream.try_write(&words), Ok(count) if count == words.len()) {
                return Heard::Nobody(None);
            }
            if !matches!(outcome, Heard::Undecided) {
                return outcome;
            }
        }
    }
}

/// The next who knocks, if anybody does; where no descriptor is left for it, in the place of a spare one.
fn admit(listener: &Listener, spares: &mut Vec<OwnedFd>) -> io::Result<Option<Stream>> {
    match listener.accept() {
        Err(cause) if no_descriptors(&cause) => {
            // The kernel wants room before it looks whether anybody is there.
            if wait(&mut [PollFd::new(listener, PollFlags::IN)], Some(Duration::ZERO)).is_err() {
                return Ok(None);
            }
            match spares.pop() {
                // Another thread may be faster: hence more than one.
                Some(spare) => {
                    drop(spare);
                    listener.accept()
                }
                None => Err(cause),
            }
        }
        accepted => accepted,
    }
}

fn dawdled(patience: Duration) -> String {
    format!("did not prove who it is within {} s", patience.as_secs_f64())
}

fn no_more_streams() -> Error {
    Error::system("keeping a connection", Errno::MFILE)
}

fn no_descriptors(cause: &io::Error) -> bool {
    let errno = Errno::from_io_error(cause);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn reception(patience: Duration) -> (Reception, SocketAddr) {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let at = listener.address().unwrap();
        let mut reception = Reception { patience, ..Reception::default() };
        reception.listen(listener);
        (reception, at)
    }

    /// Attends for a moment, as a door does again and again.
    fn attend(reception: &mut Reception) {
        let moment = Deadline::after(Some(Duration::from_millis(5)));
        let news = reception.attend(&Secret::none(), &mut |_| Ok(()), &[], &moment);
        assert!(matches!(news, Ok(News::Late)));
    }

    #[test]
    fn who_never_finishes_is_sent_away_however_often_it_is_attended_to() {
        let (mut reception, at) = reception(Duration::from_millis(50));
        let mut silent = TcpStream::connect(at).unwrap();
        let mut slow = TcpStream::connect(at).unwrap();
        while reception.strangers.len() < 2 {
            attend(&mut reception);
        }
        let late = Deadline::after(Some(LONG));
        // One byte at a time earns no more of it.
        let mut hello = b"kolo-hi4".iter().chain(std::iter::repeat(&0)).take(HELLO - 1);
        while !reception.strangers.is_empty() {
            let _ = hello.next().map(|byte| slow.write_all(&[*byte]));
            attend(&mut reception);
            assert!(!late.passed(), "they keep their places");
        }
        for stranger in [&mut silent, &mut slow] {
            stranger.set_read_timeout(Some(LONG)).unwrap();
            assert!(!matches!(stranger.read(&mut [0]), Ok(1)), "it hears nothing");
        }
    }

    #[test]
    fn no_more_are_asked_at_once_than_there_are_places() {
        let (mut reception, at) = reception(LONG);
        let strangers: Vec<TcpStream> = (0..PLACES + 50).map(|_| TcpStream::connect(at).unwrap()).collect();
        while reception.strangers.len() < PLACES {
            attend(&mut reception);
        }
        for _ in 0..10 {
            attend(&mut reception);
            assert!(reception.strangers.len() <= PLACES);
        }
        drop(strangers);
    }
}
