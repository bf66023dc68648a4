//! What ranks did last, as Chrome's trace events: a process for each rank, a thread for each communicator, a slice for
//! each call, and a mark for what moved in it.

use std::collections::BTreeMap;

use kolo::engine::Signature;
use kolo::health::Record;
use serde_json::{Value, json};

use super::timeline::moved;
use super::{call_of, end_of};
use crate::cause::words;

/// The file's content.
pub(super) fn events(records: &BTreeMap<u32, Record>) -> Value {
    let pasts =
        || records.values().flat_map(|record| record.communicators.iter().map(move |past| (record, past)));
    let begins = pasts().flat_map(|(_, past)| past.calls.iter().map(|call| call.begin));
    // Microseconds from there on fit in what JSON has for numbers.
    let start = begins.min().unwrap_or(0);
    let us = |time: u64| time.saturating_sub(start) as f64 / 1e3;
    let mut events = Vec::new();
    for record in records.values() {
        let name = format!("rank {} ({})", record.rank, record.host);
        events.push(json!({"ph": "M", "pid": record.rank, "name": "process_name", "args": {"name": name}}));
        for (thread, past) in record.communicators.iter().enumerate() {
            let place = |mut event: Value| {
                event["pid"] = record.rank.into();
                event["tid"] = thread.into();
                event
            };
            let name = format!("communicator {:08x}", past.report.communicator as u32);
            events.push(place(json!({"ph": "M", "name": "thread_name", "args": {"name": name}})));
            for (at, call) in past.calls.iter().enumerate() {
                let body = call_of(past, call);
                let name = Signature::decode(body).map_or("call".into(), |signature| signature.short());
                let took = us(end_of(record, past, at)) - us(call.begin);
                events.push(place(json!({
                    "ph": "X", "name": name, "ts": us(call.begin), "dur": took,
                    "args": {"call": words(body), "from": call.from, "to": call.to, "done": call.done},
                })));
            }
            for step in &past.steps {
                events.push(place(json!({"ph": "i", "s": "t", "name": moved(step), "ts": us(step.time)})));
            }
        }
    }
    json!({"traceEvents": events, "displayTimeUnit": "ns"})
}
