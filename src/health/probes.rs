//! A probe of the files that failing ranks write; see [`crate::parsers`].

use std::time::Duration;

use super::{Awaited, Called, Clash, Failure, Moved, Past, Record, Report, Waiting};
use crate::error::Kind;

/// A record.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        assert!(record.encode().len() <= bytes.len());
        assert_eq!(Record::decode(&record.encode()).ok(), Some(record));
    }
}

/// A rank that gave up in its second call, with all that a record can hold.
pub(crate) fn sample() -> Record {
    let on = vec![Awaited { rank: 3, message: true }];
    let waiting = Waiting { call: [7, 2, 1000, 1 << 40], waited: Duration::from_millis(600), on };
    let (failed, clash) = (Some(Some(3)), Some(Clash { ranks: [1, 3], calls: [[7, 2, 3, 4], [7, 2, 5, 4]] }));
    let report = Report { communicator: 7, begun: 2, done: 1, failed, clash, waiting: Some(waiting) };
    let failure = Failure { kind: Kind::Deadline, text: "rank 1: all_reduce #2: nothing came".into() };
    let first = Called {
        number: 0,
        sequence: 1,
        count: 1000,
        codes: 1 << 40,
        from: None,
        to: None,
        begin: 1_000,
        end: Some(2_000),
        done: true,
    };
    let second = Called { number: 1, sequence: 2, begin: 3_000, end: None, done: false, ..first };
    let message = Called { number: 2, sequence: 0, from: Some(3), ..second };
    let step =
        Moved { call: 0, lane: 1, round: 2, step: 3, from: Some(3), to: None, bytes: 4096, time: 1_500 };
    let (calls, steps) = (vec![first, second, message], vec![step]);
    let past = Past { report, failure: Some(failure), members: vec![(0, 2), (5, 1)], calls, steps };
    Record {
        version: "0.1.0".into(),
        rank: 1,
        size: 6,
        process: 4711,
        host: "host".into(),
        job: "job".into(),
        written: 4_000,
        communicators: vec![past],
    }
}

pub(crate) fn records() -> Vec<(&'static str, Vec<u8>)> {
    let whole = sample().encode();
    let mut other = whole.clone();
    other[8] = 2;
    let empty = Record { communicators: Vec::new(), ..sample() };
    let stranger = Record { rank: 6, ..sample() };
    vec![
        ("whole", whole.clone()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("more", [whole, vec![0]].concat()),
        ("another-version", other),
        ("no-communicators", empty.encode()),
        ("a-rank-too-many", stranger.encode()),
        ("no-record", b"{\"traceEvents\": []}".to_vec()),
    ]
}
