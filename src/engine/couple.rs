//! The last step of a round and the first of the next, at once.
//!
//! ```text
//! one by one   recv: slot → out   send: in → slot    memory only writes, then only reads
//! at once      recv: slot → out                      memory does both: between two ranks, a tenth less time for
//!              send: in → slot                       an all-reduce of 64 MiB
//! ```
//! Where a round ends with storing a message and the next begins with sending, both are copies, and neither needs
//! the other: what they touch are bytes of different rounds. They are done at once where both can be done now;
//! nothing waits for the other, so that whatever was proved of the steps in turn holds.

use super::link::Links;
use super::route::Hop;
use super::walk::{Call, Moving, Tried, WORTH_LENDING};
use crate::error::Result;
use crate::kernel;

/// Below this many bytes two copies stay in the nearest cache, and gain nothing by it.
const WORTH_COUPLING: usize = 16 << 10;

/// Takes `step`, if it is the lane's last, together with the first one of the next round; whether it has.
#[inline(always)]
pub(super) fn bridges(
    step: usize,
    round: usize,
    hops: &[Hop],
    links: &Links,
    call: &Call<'_>,
) -> Result<bool> {
    let next = round + call.extents.rails();
    match hops {
        [Hop::Move(first), .., Hop::Move(last)]
            if step + 1 == hops.len() && next < call.extents.rounds() && !call.request.edges =>
        {
            couple(&Moving { step: last, round, call }, &Moving { step: first, round: next, call }, links)
        }
        _ => Ok(false),
    }
}

#[inline(never)]
fn couple(last: &Moving<'_, '_>, first: &Moving<'_, '_>, links: &Links) -> Result<bool> {
    let (Some((from, place)), Some((source, to))) = (last.step.receives(), first.step.sends()) else {
        return Ok(false);
    };
    let (place, source) = (last.view(place, 0), first.view(source, 0));
    // What can come to its place by itself need not be copied.
    if place.len().min(source.len()) < WORTH_COUPLING || links.at(from).limits().receives {
        return Ok(false);
    }
    let tag = last.call.request.tag;
    let Some(message) = links.peek(from)? else { return Ok(false) };
    // What is wrong with a message, its step says. One that lies in its place need not be stored.
    if !message.is(tag, place.len()) || message.payload.same_place(place) {
        return Ok(false);
    }
    let lends = first.step.lends && source.len() >= WORTH_LENDING;
    match if lends { first.lend(links, tag)? } else { None } {
        Some(Tried::Done) => kernel::copy(&[place], message.payload),
        Some(Tried::Blocked(_)) => return Ok(false),
        None => {
            let Some(slot) = links.reserve(to, source.len())? else { return Ok(false) };
            kernel::copy_both([(place, message.payload), (slot, source)]);
            links.commit(to, source.len(), tag)?;
        }
    }
    links.release(from)?;
    Ok(true)
}
