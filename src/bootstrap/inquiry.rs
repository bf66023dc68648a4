//! What a rank says of itself when another one asks at its door.
//!
//! | asked for | says                                                             | serves                      |
//! | --------- | ---------------------------------------------------------------- | --------------------------- |
//! | reports   | how far it is on its communicators, and what their calls wait for | errors that name the culprit |
//! | calls     | what it has called on a communicator                              | whose calls were not alike  |
//! | left      | whether it has let go of a communicator                          | who waits for its links     |
//! | stage     | how far it is in agreeing on who is left of a communicator       | shrinking                   |
//! | record    | nothing; it writes down what it did last                         | `kolo trace`                |

use std::time::Duration;

use super::stream::{Stream, Trouble};
use super::wire::{Reader, Writer};
use crate::error::{Error, Kind, Result};
use crate::health::{Awaited, Clash, Deadline, Report, Stage, Waiting};

/// Of so many communicators, the newest, and of so many that each waits for.
const REPORTS: usize = 64;
const AWAITED: usize = 16;
/// The most runs of ranks without a gap that may be left.
const RUNS: usize = 1 << 10;
/// The most calls of a communicator that are told, the last ones.
const CALLS: usize = 256;
/// The most bytes of these, and of what may stand before them.
const REPORTED: usize = 2 + REPORTS * (29 + 72 + 42 + 5 * AWAITED);
const HEAD: usize = 512;
/// The longest answer.
const ANSWER: usize = HEAD + REPORTED;

/// Answers who asked. What a fresh socket has no room for is lost: who asks does without.
pub(super) fn answer(stream: &Stream, answer: &[u8]) {
    let len = (answer.len() as u16).to_le_bytes();
    let _ = stream.try_write(&[&len[..], answer].concat());
}

/// What was answered.
pub(super) fn hear(stream: &Stream, deadline: &Deadline) -> Result<Vec<u8>> {
    let trouble = |trouble| match trouble {
        Trouble::Late => Error::new(Kind::Deadline, "it does not answer"),
        Trouble::Closed => Error::new(Kind::PeerLost, "it hung up"),
        Trouble::Os(cause) => Error::system("asking it", cause),
    };
    let mut len = [0; 2];
    stream.read(&mut len, deadline).map_err(trouble)?;
    let len = usize::from(u16::from_le_bytes(len));
    let mut answer = vec![0; len.min(ANSWER)];
    stream.read(&mut answer, deadline).map_err(trouble)?;
    Ok(answer)
}

pub(super) fn encode(reports: &[Report]) -> Vec<u8> {
    let newest = &reports[reports.len().saturating_sub(REPORTS)..];
    newest.iter().fold(Writer::default().u16(newest.len() as u16), put_report).done()
}

pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Report>> {
    let mut reader = Reader::new(bytes);
    let reports = take_list(&mut reader, REPORTS, take_report)?;
    reader.end()?;
    Some(reports)
}

/// At most so many of a kind, which stand behind their number.
fn take_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(reader.u16()?);
    if count > most {
        return None;
    }
    (0..count).map(|_| take(reader)).collect()
}

/// Adds a report to a message.
pub(crate) fn put_report(answer: Writer, report: &Report) -> Writer {
    let &Report { communicator, begun, done, failed, clash, ref waiting } = report;
    let answer = answer.u64(communicator).u64(begun).u64(done);
    let blamed = failed.flatten();
    let flags = [failed.is_some(), blamed.is_some(), waiting.is_some(), clash.is_some()];
    let answer = answer.u8(flags.iter().rev().fold(0, |flags, &flag| flags << 1 | u8::from(flag)));
    let answer = answer.u32(blamed.unwrap_or(0));
    let answer = match clash {
        None => answer,
        Some(Clash { ranks, calls }) => {
            let answer = ranks.iter().fold(answer, |answer, rank| answer.u32(*rank));
            calls.as_flattened().iter().fold(answer, |answer, word| answer.u64(*word))
        }
    };
    let Some(Waiting { call, waited, on }) = waiting else { return answer };
    let answer = call.iter().fold(answer, |answer, word| answer.u64(*word));
    let on = &on[..on.len().min(AWAITED)];
    let answer = answer.u64(waited.as_millis() as u64).u16(on.len() as u16);
    on.iter().fold(answer, |answer, awaited| answer.u32(awaited.rank).u8(awaited.message.into()))
}

/// The next report of a message.
pub(crate) fn take_report(reader: &mut Reader<'_>) -> Option<Report> {
    let (communicator, begun, done) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (flags, blamed) = (reader.u8()?, reader.u32()?);
    let [failed, known, waits, differs] = [1, 2, 4, 8].map(|flag| flags & flag != 0);
    if flags > 15 || known && !failed || !known && blamed != 0 {
        return None;
    }
    let failed = failed.then(|| known.then_some(blamed));
    let clash = if differs { Some(take_clash(reader)?) } else { None };
    let waiting = if waits { Some(take_waiting(reader)?) } else { None };
    Some(Report { communicator, begun, done, failed, clash, waiting })
}

fn take_clash(reader: &mut Reader<'_>) -> Option<Clash> {
    let ranks = [reader.u32()?, reader.u32()?];
    Some(Clash { ranks, calls: [take_call(reader)?, take_call(reader)?] })
}

fn take_waiting(reader: &mut Reader<'_>) -> Option<Waiting> {
    let call = take_call(reader)?;
    let waited = Duration::from_millis(reader.u64()?);
    let awaited = |reader: &mut Reader<'_>| Some(Awaited { rank: reader.u32()?, message: reader.u8()? != 0 });
    let on = take_list(reader, AWAITED, awaited)?;
    Some(Waiting { call, waited, on })
}

/// The last of these calls.
pub(super) fn encode_calls(calls: &[[u64; 4]]) -> Vec<u8> {
    let last = &calls[calls.len().saturating_sub(CALLS)..];
    last.as_flattened()
        .iter()
        .fold(Writer::default().u16(last.len() as u16), |answer, word| answer.u64(*word))
        .done()
}

pub(super) fn decode_calls(bytes: &[u8]) -> Option<Vec<[u64; 4]>> {
    let mut reader = Reader::new(bytes);
    let calls = take_list(&mut reader, CALLS, take_call)?;
    reader.end()?;
    Some(calls)
}

fn take_call(reader: &mut Reader<'_>) -> Option<[u64; 4]> {
    Some([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?])
}

/// A stage: ranks as runs without a gap, since few are missing.
pub(super) fn encode_stage(stage: &Stage) -> Vec<u8> {
    let kind = Writer::default();
    match stage {
        Stage::Out => kind.u8(0).done(),
        Stage::Left(rank) => kind.u8(1).u32(*rank).done(),
        Stage::Decided(left) => {
            let runs: Vec<&[u32]> = left.chunk_by(|a, b| a + 1 == *b).collect();
            let answer = kind.u8(2).u16(runs.len() as u16);
            runs.iter().fold(answer, |answer, run| answer.u32(run[0]).u32(run.len() as u32)).done()
        }
    }
}

/// The stage of a rank of a job of `size`.
pub(super) fn decode_stage(bytes: &[u8], size: usize) -> Option<Stage> {
    let mut reader = Reader::new(bytes);
    let stage = match reader.u8()? {
        0 => Stage::Out,
        1 => Stage::Left(reader.u32().filter(|rank| (*rank as usize) < size)?),
        2 => {
            let runs = usize::from(reader.u16()?);
            if runs > RUNS {
                return None;
            }
            let mut left: Vec<u32> = Vec::new();
            for _ in 0..runs {
                let (first, len) = (reader.u32()?, reader.u32()?);
                let end = first.checked_add(len).filter(|end| *end as usize <= size)?;
                // In ascending order, with a gap between: so there are no more of them than ranks.
                if len == 0 || left.last().is_some_and(|last| first <= last + 1) {
                    return None;
                }
                left.extend(first..end);
            }
            Stage::Decided(left)
        }
        _ => return None,
    };
    reader.end()?;
    Some(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_survive_their_encoding_and_ranks_that_cannot_be_are_refused() {
        let stages =
            [Stage::Out, Stage::Left(7), Stage::Decided(vec![]), Stage::Decided(vec![0, 1, 2, 5, 8, 9])];
        for stage in stages {
            let bytes = encode_stage(&stage);
            assert_eq!(decode_stage(&bytes, 10), Some(stage));
            assert!((0..bytes.len()).all(|len| decode_stage(&bytes[..len], 10).is_none()));
            assert_eq!(decode_stage(&[bytes, vec![0]].concat(), 10), None);
        }
        assert_eq!(decode_stage(&encode_stage(&Stage::Left(10)), 10), None);
        assert_eq!(decode_stage(&encode_stage(&Stage::Decided((0..11).collect())), 10), None);
        let endless = Writer::default().u8(2).u16(1).u32(5).u32(u32::MAX).done();
        assert_eq!(decode_stage(&endless, 10), None);
    }

    fn report(number: u64) -> Report {
        let on = (0..20).map(|rank| Awaited { rank, message: rank % 2 == 0 }).take(number as usize % 17);
        let waited = Duration::from_millis(number);
        let waiting = Waiting { call: [number, 1, 2, 3], waited, on: on.collect() };
        let failed = [None, Some(None), Some(Some(0)), Some(Some(7))][number as usize % 4];
        let clash = Clash { ranks: [1, number as u32], calls: [[1, 2, 3, 4], [5, 6, 7, number]] };
        let clash = (number % 2 == 1).then_some(clash);
        Report { communicator: number, begun: 9, done: 8, failed, clash, waiting: Some(waiting) }
    }

    #[test]
    fn reports_survive_their_encoding_and_nothing_less_is_one() {
        let reports: Vec<_> = (0..5).map(report).chain([Report { waiting: None, ..report(6) }]).collect();
        let bytes = encode(&reports);
        assert_eq!(decode(&bytes).as_ref(), Some(&reports));
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_none()));
        assert_eq!(decode(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn the_last_calls_survive_their_encoding() {
        let calls: Vec<_> = (0..CALLS as u64 + 9).map(|number| [7, number, 2, 3]).collect();
        let bytes = encode_calls(&calls);
        assert!(bytes.len() <= ANSWER);
        assert_eq!(decode_calls(&bytes).as_deref(), Some(&calls[9..]));
        assert!((0..bytes.len()).all(|len| decode_calls(&bytes[..len]).is_none()));
        assert_eq!(decode_calls(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn the_newest_are_told_and_the_answer_is_bounded() {
        let most = Waiting { on: vec![Awaited { rank: 1, message: true }; 99], ..report(1).waiting.unwrap() };
        let long = |number| Report { waiting: Some(most.clone()), clash: report(1).clash, ..report(number) };
        let bytes = encode(&(0..1000).map(long).collect::<Vec<_>>());
        assert_eq!(bytes.len(), REPORTED);
        let told = decode(&bytes).expect("it can be read");
        assert!(told.len() == REPORTS && told[0].communicator == 1000 - REPORTS as u64);
        assert_eq!(told[0].waiting.as_ref().map(|waiting| waiting.on.len()), Some(AWAITED));
    }
}
