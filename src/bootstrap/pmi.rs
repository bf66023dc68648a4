//! Meeting through PMI-1, the key-value store of MPICH's and Intel MPI's mpiexec.
//!
//! Lines of text on an inherited descriptor, one answer to each:
//!
//! | asked                                | answered                                      |
//! | ------------------------------------ | --------------------------------------------- |
//! | `cmd=init pmi_version=1 ...`         | `cmd=response_to_init rc=0 ...`               |
//! | `cmd=get_maxes`                      | `cmd=maxes kvsname_max= keylen_max= vallen_max=` |
//! | `cmd=get_my_kvsname`                 | `cmd=my_kvsname kvsname=`                     |
//! | `cmd=put kvsname= key= value=`       | `cmd=put_result rc=0 ...`                     |
//! | `cmd=barrier_in`                     | `cmd=barrier_out`, once all ranks asked       |
//! | `cmd=get kvsname= key=`              | `cmd=get_result rc=0 value=`                  |
//! | `cmd=finalize`                       | `cmd=finalize_ack`                            |
//!
//! An all-gather puts this rank's bytes in hexadecimal, cut into values that the store takes, then
//! waits for all, then gets every other rank's. (Balaji et al., "PMI: A Scalable Parallel
//! Process-Management Interface for Extreme-Scale Systems", EuroMPI 2010.)

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use super::Bootstrap;
use super::dial::within;
use super::secret::hex;
use super::star::MOST;
use super::stream::{Stream, Trouble};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::sys::socket;

/// The longest line that is read.
const LINE: usize = 1 << 16;
/// The longest value that is put, however long the store says it may be.
const VALUE: usize = 1 << 14;

/// A rank's end of the store.
pub(super) struct Pmi {
    rank: usize,
    size: usize,
    channel: Channel,
    kvs: String,
    /// The most bytes of a value.
    value: usize,
    /// Numbers the all-gathers, so that no key is put twice.
    round: usize,
}

impl Pmi {
    /// Takes over the descriptor that the launcher left.
    pub(super) fn open(fd: RawFd, rank: usize, size: usize, deadline: Deadline) -> Result<Self> {
        let socket = socket::inherited(fd)
            .map_err(|cause| Error::system(format!("taking over PMI_FD={fd}"), cause))?;
        let stream = Stream::Unix(UnixStream::from(socket));
        let mut channel = Channel { stream, unread: Vec::new(), deadline };
        let answer = channel.ask("cmd=init pmi_version=1 pmi_subversion=1", "response_to_init")?;
        check(&answer, "init")?;
        let maxes = channel.ask("cmd=get_maxes", "maxes")?;
        let value = field(&maxes, "vallen_max").and_then(|value| value.parse::<usize>().ok());
        // One byte less, since some stores count the end of a string. Below that nothing useful fits.
        let value = value.map(|value| value.saturating_sub(1).min(VALUE)).filter(|&value| value >= 16);
        let value = value.ok_or_else(|| refused("says no useful vallen_max"))?;
        let kvs = channel.ask("cmd=get_my_kvsname", "my_kvsname")?;
        let kvs = field(&kvs, "kvsname").ok_or_else(|| refused("has no name for its store"))?.to_owned();
        Ok(Self { rank, size, channel, kvs, value, round: 0 })
    }

    fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let line = format!("cmd=put kvsname={} key={key} value={value}", self.kvs);
        check(&self.channel.ask(&line, "put_result")?, "put")
    }

    fn get(&mut self, key: &str) -> Result<String> {
        let answer = self.channel.ask(&format!("cmd=get kvsname={} key={key}", self.kvs), "get_result")?;
        check(&answer, "get")?;
        field(&answer, "value").map(str::to_owned).ok_or_else(|| refused("gave no value"))
    }

    /// The key of a part of what a rank says; the first is headed by how many bytes there are in all.
    fn key(&self, rank: usize, part: usize) -> String {
        format!("kolo-{}-{rank}-{part}", self.round)
    }

    fn fetch(&mut self, rank: usize) -> Result<Vec<u8>> {
        let malformed = || Error::new(Kind::Refused, format!("rank {rank} put a value that cannot be read"));
        let first = self.get(&self.key(rank, 0))?;
        let (len, digits) = first.split_once(':').ok_or_else(malformed)?;
        let len = len.parse::<usize>().ok().filter(|&len| len <= MOST).ok_or_else(malformed)?;
        let mut digits = digits.to_owned();
        let mut part = 1;
        while digits.len() < 2 * len {
            let more = self.get(&self.key(rank, part))?;
            if more.is_empty() {
                return Err(malformed());
            }
            digits += &more;
            part += 1;
        }
        unhex(&digits).filter(|bytes| bytes.len() == len).ok_or_else(malformed)
    }
}

impl Bootstrap for Pmi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        super::star::check(mine)?;
        self.round += 1;
        let text = format!("{}:{}", mine.len(), hex(mine));
        for (part, value) in text.as_bytes().chunks(self.value).enumerate() {
            let value = std::str::from_utf8(value).expect("hexadecimal digits are ASCII");
            self.put(&self.key(self.rank, part), value)?;
        }
        self.channel.ask("cmd=barrier_in", "barrier_out").map_err(|error| match error.kind() {
            Kind::Deadline => {
                let waited = within(&self.channel.deadline);
                let text =
                    format!("not all ranks came to the launcher's barrier{waited}: does each start kolo?");
                Error::new(Kind::Deadline, text)
            }
            _ => error,
        })?;
        let size = self.size;
        let fetch = |rank| if rank == self.rank { Ok(mine.to_vec()) } else { self.fetch(rank) };
        (0..size).map(fetch).collect()
    }
}

impl Drop for Pmi {
    /// Without this goodbye the launcher takes the end of this rank, whenever it comes, for a failure.
    fn drop(&mut self) {
        let _ = self.channel.ask("cmd=finalize", "finalize_ack");
    }
}

/// Lines back and forth.
struct Channel {
    stream: Stream,
    unread: Vec<u8>,
    deadline: Deadline,
}

impl Channel {
    /// Asks, and returns the answer's line, which must be of the given command.
    fn ask(&mut self, line: &str, expected: &str) -> Result<String> {
        let sent = self.stream.write(format!("{line}\n").as_bytes(), &self.deadline);
        sent.map_err(|trouble| self.failed(line, trouble))?;
        let answer = self.line().map_err(|trouble| self.failed(line, trouble))?;
        match field(&answer, "cmd") {
            Some(command) if command == expected => Ok(answer),
            _ => {
                let answer = super::handshake::printable(answer.as_bytes());
                Err(refused(&format!("answered `{answer}` where {expected} was expected")))
            }
        }
    }

    fn line(&mut self) -> Result<String, Trouble> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.unread.len() > LINE {
                return Err(Trouble::Os(std::io::Error::other("a line without an end")));
            }
            let mut byte = [0; 1];
            self.stream.read(&mut byte, &self.deadline)?;
            self.unread.push(byte[0]);
            let mut more = [0; 4096];
            if let Some(count) = self.stream.try_read(&mut more)? {
                self.unread.extend_from_slice(&more[..count]);
            }
        }
    }

    fn failed(&self, line: &str, trouble: Trouble) -> Error {
        let command = field(line, "cmd").unwrap_or("?");
        match trouble {
            Trouble::Closed => Error::new(Kind::PeerLost, "the launcher (PMI) hung up"),
            Trouble::Late => {
                let waited = within(&self.deadline);
                Error::new(Kind::Deadline, format!("the launcher (PMI) did not answer `{command}`{waited}"))
            }
            Trouble::Os(cause) => Error::system(format!("asking the launcher (PMI) for `{command}`"), cause),
        }
    }
}

/// The value of a `name=value` word of a line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').filter_map(|word| word.split_once('=')).find(|(known, _)| *known == name).map(|(_, v)| v)
}

fn check(answer: &str, what: &str) -> Result<()> {
    match field(answer, "rc") {
        Some("0") => Ok(()),
        _ => Err(refused(&format!("refused `{what}`: {}", super::handshake::printable(answer.as_bytes())))),
    }
}

fn refused(what: &str) -> Error {
    Error::new(Kind::Refused, format!("the launcher (PMI) {what}"))
}

pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_garbage_has_none() {
        let line = "cmd=get_result rc=0 msg=success value=2:00ff";
        assert_eq!(field(line, "value"), Some("2:00ff"));
        assert_eq!(field(line, "val"), None);
        assert_eq!(field("== = x", "x"), None);
        assert_eq!(field("", "cmd"), None);
    }

    #[test]
    fn hexadecimal_is_read_back_and_nothing_else_is() {
        assert_eq!(unhex(&hex(&[0, 1, 254, 255])), Some(vec![0, 1, 254, 255]));
        assert_eq!(unhex(""), Some(vec![]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
