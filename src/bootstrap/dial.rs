//! Knocking: connect, and prove to be who one says, within a deadline.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::handshake::{CHALLENGE, Dialer, Judged, VERDICT};
use super::hello::Hello;
use super::secret::Secret;
use super::stream::{Dialed, Stream, Trouble, dial_tcp, dial_unix};
use crate::config::Place;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// The first pause before another attempt; each is twice as long as the one before, up to the last.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(1);
pub(super) const LAST_PAUSE: Duration = Duration::from_millis(100);
/// The longest attempt at one address while there may be others.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);

/// Connects to `place` as `hello` says. Where nobody listens, it tries again if `patient`, since whoever
/// is to listen may not have started yet.
pub(super) fn dial(
    place: &Place,
    hello: &Hello,
    secret: &Secret,
    patient: bool,
    deadline: &Deadline,
) -> Result<Stream> {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match knock(place, hello, secret, deadline)? {
            Knocked::In(stream) => return Ok(stream),
            Knocked::Absent(cause) if !patient => return Err(gone(place, &cause)),
            Knocked::Absent(cause) => cause.to_string(),
            Knocked::Later(why) => why,
        };
        if deadline.passed() {
            let allowed = within(deadline);
            let text = format!("rank {} was not reached at {place}{allowed}: {why}", hello.to);
            return Err(Error::new(Kind::Deadline, text));
        }
        std::thread::sleep(deadline.left().map_or(pause, |left| left.min(pause)));
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// What came of one attempt.
pub(super) enum Knocked {
    /// Both have proved themselves.
    In(Stream),
    /// Nobody listens there, now.
    Absent(std::io::Error),
    /// Somebody does, and another attempt may succeed.
    Later(String),
}

/// Tries once to connect to `place` as `hello` says.
pub(super) fn knock(place: &Place, hello: &Hello, secret: &Secret, deadline: &Deadline) -> Result<Knocked> {
    let stream = match reach(place, deadline)? {
        Dialed::Open(stream) => stream,
        Dialed::Absent(cause) => return Ok(Knocked::Absent(cause)),
        Dialed::Busy => return Ok(Knocked::Later("too many connect at once".into())),
    };
    let why = match greet(&stream, hello, secret, deadline) {
        Ok(Judged::In(session)) => return Ok(Knocked::In(stream.sealed(session))),
        Ok(Judged::Later(why)) => why,
        Err(Unproved::Refused(error)) => return Err(error),
        Err(Unproved::Trouble(Trouble::Late)) => "it accepts connections but does not answer".into(),
        Err(Unproved::Trouble(Trouble::Os(cause))) => cause.to_string(),
        Err(Unproved::Trouble(Trouble::Closed)) => "it hung up".into(),
    };
    Ok(Knocked::Later(why))
}

/// A place that refuses is that of a process that has ended; another one may only be cut off.
fn gone(place: &Place, cause: &std::io::Error) -> Error {
    match cause.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            Error::new(Kind::PeerLost, format!("nobody listens any more at {place}: {cause}"))
        }
        _ => Error::new(Kind::System, format!("nothing answers at {place}: {cause}")),
    }
}

/// ` within 60 s`, for errors.
pub(super) fn within(deadline: &Deadline) -> String {
    deadline.allowed().map_or(String::new(), |allowed| format!(" within {} s", allowed.as_secs_f64()))
}

pub(super) fn reach(place: &Place, deadline: &Deadline) -> Result<Dialed> {
    let host = match place {
        Place::Unix(name) => return dial_unix(name),
        Place::Tcp(host) => host,
    };
    let mut outcome = Dialed::Absent(std::io::ErrorKind::TimedOut.into());
    for address in resolve(host)? {
        let allowed = deadline.left().map_or(ATTEMPT, |left| left.min(ATTEMPT));
        outcome = dial_tcp(address, allowed)?;
        if matches!(outcome, Dialed::Open(_)) {
            break;
        }
    }
    Ok(outcome)
}

/// The addresses that `host:port` stands for.
pub(super) fn resolve(host: &str) -> Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = host
        .to_socket_addrs()
        .map_err(|cause| Error::system(format!("cannot find the address of {host}"), cause))?
        .collect();
    if addresses.is_empty() {
        return Err(Error::new(Kind::System, format!("{host} has no address")));
    }
    Ok(addresses)
}

enum Unproved {
    Refused(Error),
    Trouble(Trouble),
}

impl From<Trouble> for Unproved {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Error> for Unproved {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

fn greet(stream: &Stream, hello: &Hello, secret: &Secret, deadline: &Deadline) -> Result<Judged, Unproved> {
    let (mut dialer, words) = Dialer::new(hello, secret, stream.over_network());
    stream.write(&words, deadline)?;
    let mut challenge = [0; CHALLENGE];
    stream.read(&mut challenge, deadline)?;
    stream.write(&dialer.answer(&challenge)?, deadline)?;
    let mut verdict = [0; VERDICT];
    stream.read(&mut verdict, deadline)?;
    let mut words = vec![0; Dialer::words(&verdict)?];
    stream.read(&mut words, deadline)?;
    Ok(dialer.judge(&verdict, &words)?)
}
