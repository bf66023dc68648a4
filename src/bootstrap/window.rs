//! The window beside each door: any process of this user may look in and see where the rank stands, without the job's
//! secret, and without a word of its own.
//!
//! It is an abstract UNIX socket whose name says whose it is, `kolo-status-USER-JOB-RANK-PROCESS`, so that it is found
//! among all of this host. The door's attendant writes what is to be seen to who connects, and hangs up.

use std::time::Duration;

use super::inquiry;
use super::stream::{Dialed, Listener, dial_unix};
use super::wire::{Reader, Writer, cut};
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Report, plain_name};

/// What all of these names begin with.
const PREFIX: &str = "kolo-status-";
/// The longest name of a job that is shown.
const JOB: usize = 256;

/// A window that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The job's name, as far as it is in the window's.
    pub job: String,
    /// The rank that is seen through it.
    pub rank: u32,
    /// Its process.
    pub process: u32,
    name: String,
}

/// What is seen through a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The job's name.
    pub job: String,
    /// How many ranks it has.
    pub size: u32,
    /// Where this one stands.
    pub reports: Vec<Report>,
}

impl Window {
    /// Those of this user's ranks on this host, job by job.
    ///
    /// # Errors
    /// `System` where the host's sockets cannot be listed.
    pub fn all() -> Result<Vec<Self>> {
        const LIST: &str = "/proc/net/unix";
        let list = std::fs::read_to_string(LIST).map_err(|cause| Error::system(LIST, cause))?;
        let mut all: Vec<Self> = list.lines().filter_map(Self::parse).collect();
        all.sort_by(|a, b| (&a.job, a.rank, a.process).cmp(&(&b.job, b.rank, b.process)));
        // A connection bears its listener's name.
        all.dedup();
        Ok(all)
    }

    /// From a line that ends with `@` and the name.
    fn parse(line: &str) -> Option<Self> {
        let name = line.rsplit_once('@')?.1;
        let (user, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let mut words = rest.rsplitn(3, '-');
        let (process, rank) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let own = user.parse() == Ok(rustix::process::geteuid().as_raw());
        own.then_some(Self { job: words.next()?.to_owned(), rank, process, name: name.to_owned() })
    }

    /// Whether its job's name is that, or begins so.
    pub fn is_of(&self, job: &str) -> bool {
        self.job.starts_with(&plain_name(job))
    }

    /// Looks in.
    ///
    /// # Errors
    /// `Deadline` where nothing is shown in that time: the process is stopped. `PeerLost` where it has ended.
    pub fn look(&self, allowed: Duration) -> Result<Sight> {
        let Dialed::Open(stream) = dial_unix(&self.name)? else {
            return Err(Error::new(Kind::PeerLost, "it has ended"));
        };
        let bytes = inquiry::hear(&stream, &Deadline::after(Some(allowed)))?;
        decode(&bytes).ok_or_else(|| Error::new(Kind::Refused, "what it shows cannot be read"))
    }
}

/// A rank's window.
pub(super) fn open(job: &str, rank: usize) -> std::io::Result<Listener> {
    let (user, process) = (rustix::process::geteuid().as_raw(), std::process::id());
    Listener::unix(&format!("{PREFIX}{user}-{}-{rank}-{process}", plain_name(job)))
}

pub(super) fn encode(job: &str, size: usize, reports: &[Report]) -> Vec<u8> {
    Writer::default().text(cut(job, JOB)).u32(size as u32).raw(&inquiry::encode(reports)).done()
}

pub(super) fn decode(bytes: &[u8]) -> Option<Sight> {
    let mut reader = Reader::new(bytes);
    let (job, size) = (reader.text(JOB)?.to_owned(), reader.u32()?);
    Some(Sight { job, size, reports: inquiry::decode(reader.rest())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_window_it_is() {
        let user = rustix::process::geteuid().as_raw();
        let line = |user: u32| format!("0: 2 0 10000 0001 01 17 @kolo-status-{user}-odd-job-3-4711");
        let window = Window::parse(&line(user)).unwrap();
        assert_eq!((window.job.as_str(), window.rank, window.process), ("odd-job", 3, 4711));
        assert!(window.is_of("odd/job") && window.is_of("odd") && !window.is_of("job"));
        assert_eq!(Window::parse(&line(user + 1)), None);
        for other in
            ["", "0: 2 0 10000 0001 01 17", "@kolo-door-1234", "@kolo-status-0", "@kolo-status-0-a-b-c"]
        {
            assert_eq!(Window::parse(other), None, "{other}");
        }
    }
}
