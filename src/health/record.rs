//! What a rank writes down when a call fails: where it stands, and what its recorder holds; `kolo trace` reads it.
//!
//! ```text
//! "kolo-rec" 1 │ version, rank, size, process, host, job, time │ communicators: report, failure, members, calls, steps
//! ```
//! Numbers are little-endian; everything of variable length stands behind its bounded length. There is nothing secret in
//! it: neither the job's secret nor any element of a vector.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::standing::Report;
use crate::bootstrap::{Reader, Writer, cut, put_report, take_report};
use crate::error::{Error, Kind, Result};

/// Names the file's form; the last byte changes with it.
const MAGIC: &[u8; 9] = b"kolo-rec\x01";
/// The longest error that is written down, and the longest name.
const TEXT: usize = 4 << 10;
const NAME: usize = 256;
/// Of so many communicators, the newest; of the members of each, so many runs of consecutive numbers.
const COMMUNICATORS: usize = 64;
const RUNS: usize = 4 << 10;
/// As much of a job's name as is in the file's.
const NAMED: usize = 40;
/// What kinds of failures are written as: their places here.
const KINDS: [Kind; 7] =
    [Kind::Usage, Kind::Mismatch, Kind::Deadline, Kind::PeerLost, Kind::Aborted, Kind::Refused, Kind::System];

/// What one rank has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// kolo's version there.
    pub version: String,
    /// The rank, of so many.
    pub rank: u32,
    /// See `rank`.
    pub size: u32,
    /// Its process.
    pub process: u32,
    /// The name of its host.
    pub host: String,
    /// The job's name.
    pub job: String,
    /// When it was written: nanoseconds since 1970, by that host's clock, as all times here.
    pub written: u64,
    /// Its communicators, the oldest first.
    pub communicators: Vec<Past>,
}

/// What became of one communicator. Ranks are numbered as the job does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Where it stands.
    pub report: Report,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its ranks, in their order there, as runs of consecutive numbers: the first of each, and how many.
    pub members: Vec<(u32, u32)>,
    /// Its last calls, the oldest first.
    pub calls: Vec<Called>,
    /// What moved last in them.
    pub steps: Vec<Moved>,
}

/// Why a communicator failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of error its callers got.
    pub kind: Kind,
    /// What that said.
    pub text: String,
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    /// The how many-th it was here, messages between two ranks included, from 0.
    pub number: u64,
    /// What all ranks number it; 0 where it was a message between two ranks.
    pub sequence: u64,
    /// As they travel: see [`Signature`](crate::engine::Signature::decode).
    pub count: u64,
    /// See `count`.
    pub codes: u64,
    /// Whom a message came from, and whom one went to.
    pub from: Option<u32>,
    /// See `from`.
    pub to: Option<u32>,
    /// When it began.
    pub begin: u64,
    /// When it ended, where that was looked at; else it ended before the next one began.
    pub end: Option<u64>,
    /// Whether it ended well.
    pub done: bool,
}

/// A step that moved something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Of which call, by its [`Called::number`].
    pub call: u64,
    /// In which lane, round and step.
    pub lane: u8,
    /// See `lane`.
    pub round: u32,
    /// See `lane`.
    pub step: u32,
    /// The first rank that it came from, where it did not lie here.
    pub from: Option<u32>,
    /// The first rank that it went to, if any.
    pub to: Option<u32>,
    /// How many bytes moved.
    pub bytes: u64,
    /// When it was done.
    pub time: u64,
}

impl Record {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Self { version, rank, size, process, host, job, written, communicators } = self;
        let head = Writer::default().raw(MAGIC).text(cut(version, NAME)).u32(*rank).u32(*size).u32(*process);
        let head = head.text(cut(host, NAME)).text(cut(job, NAME)).u64(*written);
        let newest = &communicators[communicators.len().saturating_sub(COMMUNICATORS)..];
        newest.iter().fold(head.u16(newest.len() as u16), put_past).done()
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// `Refused` where they are no record, or not a whole one, or another version's.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let refused = |text: &str| Error::new(Kind::Refused, text);
        match bytes.get(..MAGIC.len()) {
            Some(magic) if magic == MAGIC => {
                Self::parse(&bytes[MAGIC.len()..]).ok_or_else(|| refused("the record is damaged, or cut off"))
            }
            Some(magic) if magic[..8] == MAGIC[..8] => {
                let text = "another version of kolo wrote this record: read it with that one's kolo trace";
                Err(refused(text))
            }
            _ => Err(refused("it is no record of kolo's")),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.text(NAME)?.to_owned();
        let (rank, size, process) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (host, job) = (reader.text(NAME)?.to_owned(), reader.text(NAME)?.to_owned());
        let written = reader.u64()?;
        let communicators = many(&mut reader, COMMUNICATORS, take_past)?;
        reader.end()?;
        (rank < size).then_some(Self { version, rank, size, process, host, job, written, communicators })
    }

    /// Writes it into a folder, which is made if there is none, for this user alone; and says where.
    ///
    /// # Errors
    /// What the system refused.
    pub(super) fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let name = format!("kolo-{}-rank{}-{}.record", plain_name(&self.job), self.rank, self.process);
        // Whoever reads it finds all of it, or the one before.
        let (path, fresh) = (folder.join(&name), folder.join(format!(".{name}")));
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let written = file.write_all(&self.encode()).and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            // Such as where the disk is full.
            let _ = fs::remove_file(&fresh);
        }
        written.map(|()| path)
    }
}

/// A job's name, as far as names of files and sockets can bear it.
pub(crate) fn plain_name(job: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    job.chars().map(plain).take(NAMED).collect()
}

/// A number of things, and then those.
fn many<T>(
    reader: &mut Reader<'_>,
    most: usize,
    take: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(reader.u16()?);
    if count > most {
        return None;
    }
    (0..count).map(|_| take(reader)).collect()
}

fn put_past(bytes: Writer, past: &Past) -> Writer {
    let Past { report, failure, members, calls, steps } = past;
    let bytes = put_report(bytes, report);
    let bytes = match failure {
        None => bytes.u8(0),
        Some(Failure { kind, text }) => {
            let kind = KINDS.iter().position(|known| known == kind).expect("all kinds are listed");
            bytes.u8(1 + kind as u8).text(cut(text, TEXT))
        }
    };
    let runs = &members[..members.len().min(RUNS)];
    let bytes = bytes.u16(runs.len() as u16);
    let bytes = runs.iter().fold(bytes, |bytes, (first, len)| bytes.u32(*first).u32(*len));
    let bytes = calls.iter().fold(bytes.u16(calls.len() as u16), |bytes, call| {
        let bytes = bytes.u64(call.number).u64(call.sequence).u64(call.count).u64(call.codes);
        let bytes = put_rank(put_rank(bytes, call.from), call.to).u64(call.begin);
        bytes.u64(call.end.unwrap_or(0)).u8(call.done.into())
    });
    steps.iter().fold(bytes.u16(steps.len() as u16), |bytes, step| {
        let bytes = bytes.u64(step.call).u8(step.lane).u32(step.round).u32(step.step);
        put_rank(put_rank(bytes, step.from), step.to).u64(step.bytes).u64(step.time)
    })
}

fn take_past(reader: &mut Reader<'_>) -> Option<Past> {
    let report = take_report(reader)?;
    let failure = match usize::from(reader.u8()?) {
        0 => None,
        kind => Some(Failure { kind: *KINDS.get(kind - 1)?, text: reader.text(TEXT)?.to_owned() }),
    };
    let members = many(reader, RUNS, |reader| Some((reader.u32()?, reader.u32()?)))?;
    let calls = many(reader, usize::MAX, |reader| {
        Some(Called {
            number: reader.u64()?,
            sequence: reader.u64()?,
            count: reader.u64()?,
            codes: reader.u64()?,
            from: take_rank(reader)?,
            to: take_rank(reader)?,
            begin: reader.u64()?,
            end: Some(reader.u64()?).filter(|end| *end != 0),
            done: reader.u8()? != 0,
        })
    })?;
    let steps = many(reader, usize::MAX, |reader| {
        Some(Moved {
            call: reader.u64()?,
            lane: reader.u8()?,
            round: reader.u32()?,
            step: reader.u32()?,
            from: take_rank(reader)?,
            to: take_rank(reader)?,
            bytes: reader.u64()?,
            time: reader.u64()?,
        })
    })?;
    Some(Past { report, failure, members, calls, steps })
}

/// A rank, or nobody.
fn put_rank(bytes: Writer, rank: Option<u32>) -> Writer {
    bytes.u32(rank.unwrap_or(u32::MAX))
}

fn take_rank(reader: &mut Reader<'_>) -> Option<Option<u32>> {
    reader.u32().map(|rank| Some(rank).filter(|rank| *rank != u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::probes::sample;
    use super::*;

    #[test]
    fn a_record_survives_its_encoding_and_nothing_less_is_one() {
        let bytes = sample().encode();
        assert_eq!(Record::decode(&bytes).unwrap(), sample());
        assert!((0..bytes.len()).all(|len| Record::decode(&bytes[..len]).is_err()));
        let text = |bytes: &[u8]| Record::decode(bytes).unwrap_err().to_string();
        assert!(text(&[&bytes[..], &[0]].concat()).contains("damaged"));
        assert!(text(b"kolo-rec\x02").contains("another version") && text(b"{}").contains("no record"));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut record = sample();
        record.job = "\u{e9}".repeat(NAME);
        let mut past = record.communicators.remove(0);
        past.failure = Some(Failure { kind: Kind::System, text: "x".repeat(2 * TEXT) });
        past.members = vec![(0, 1); 2 * RUNS];
        record.communicators = vec![past; 2 * COMMUNICATORS];
        let read = Record::decode(&record.encode()).unwrap();
        assert_eq!((read.job.len(), read.communicators.len()), (NAME, COMMUNICATORS));
        let past = &read.communicators[0];
        assert_eq!((past.failure.as_ref().unwrap().text.len(), past.members.len()), (TEXT, RUNS));
    }

    #[test]
    fn it_is_written_for_this_user_alone_and_over_the_one_before() {
        let folder = std::env::temp_dir().join(format!("kolo-test-record-{}", std::process::id()));
        let mut record = sample();
        record.job = "../odd job".into();
        let path = record.write(&folder.join("deep")).unwrap();
        record.written += 1;
        assert_eq!(record.write(&folder.join("deep")).unwrap(), path);
        assert_eq!(path.file_name().unwrap(), "kolo----odd-job-rank1-4711.record");
        let files = fs::read_dir(folder.join("deep")).unwrap().count();
        let modes = [&path, &folder.join("deep")].map(|path| fs::metadata(path).unwrap().mode() & 0o777);
        let read = Record::decode(&fs::read(&path).unwrap()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((files, modes, read), (1, [0o600, 0o700], record));
    }
}
