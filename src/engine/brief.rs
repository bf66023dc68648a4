//! Small calls: a route that is walked once, in one lane, as a list of what is to be done.
//!
//! ```text
//! all_reduce of 8 bytes, rank 0 of 2      send     input 0..8 to link 0
//!                                         reduce   input 0..8 and link 0 into output 0..8
//! ```
//! A small call costs what it takes to find out what is to be done; here that is known beforehand. Where a step has
//! to wait long, a [`Walk`] goes on from there.

use super::Request;
use super::board::Board;
use super::chart::{Bytes, Chart, Leg, Place};
use super::link::Links;
use super::route::{Hop, Move, Route};
use super::walk::{Call, Tried, WORTH_LENDING, Walk, mismatch};
use crate::error::Result;
use crate::kernel;
use crate::memory::View;
use crate::plan::Memory;

const INPUT: usize = Memory::Input.kind();
const OUTPUT: usize = Memory::Output.kind();
const BOARD: usize = Memory::Board(0).kind();

/// The steps of such a route.
#[derive(Debug)]
pub struct Brief {
    forms: Box<[Form]>,
    /// Whether one of them may lend memory, which is waited for at the end.
    lends: bool,
}

/// A step; all but the last are of one block, which is not empty and is not lent.
#[derive(Debug)]
enum Form {
    /// To a link.
    Send(Bytes, u32),
    /// The same, and a copy for this rank.
    SendAndKeep(Bytes, u32, Bytes),
    /// From a link.
    Receive(u32, Bytes),
    /// This rank's bytes and a link's; `swapped`, in the other order.
    Reduce { with: Bytes, from: u32, swapped: bool, finish: bool, into: Bytes },
    /// Of this rank; with the reducer's last touch, where it has one.
    Copy { from: Bytes, finish: bool, into: Bytes },
    /// A message without a payload, to a link.
    Signal(u32),
    /// The same, from one.
    Await(u32),
    /// Any other: as a walk takes it.
    Any,
}

/// A small call on its way.
pub(super) struct Sprint<'a> {
    pub(super) links: &'a Links,
    pub(super) request: &'a Request<'a>,
    pub(super) route: &'a Route,
    pub(super) chart: &'a Chart,
    pub(super) scratch: View<'a>,
}

impl Brief {
    /// That of these steps.
    pub fn new(hops: &[Hop], legs: &[Leg]) -> Self {
        let steps = || hops.iter().zip(legs);
        let lent = |(hop, leg): (&Hop, &Leg)| matches!(hop, Hop::Move(step) if lends(step, leg));
        Self { forms: steps().map(|(hop, leg)| Form::new(hop, leg)).collect(), lends: steps().any(lent) }
    }
}

impl<'a> Sprint<'a> {
    /// Takes the steps, with so many looks for each. What is left of them is returned.
    #[inline(always)]
    pub(super) fn run(&self, Brief { forms, lends }: &Brief, looks: u32) -> Result<Option<Walk>> {
        for (step, form) in forms.iter().enumerate() {
            let mut looked = 0;
            while !self.takes(step, form)? {
                looked += 1;
                if looked > looks {
                    return Ok(Some(Walk::from_step(step)));
                }
                std::hint::spin_loop();
            }
        }
        if !lends || self.links.settled(&self.route.links)? {
            return Ok(None);
        }
        Ok(Some(Walk::from_step(forms.len())))
    }

    /// Takes a step, if it can be taken.
    #[inline(always)]
    fn takes(&self, step: usize, form: &Form) -> Result<bool> {
        let Self { links, request, .. } = self;
        match form {
            // Each edge has a tag of its own.
            _ if request.edges => self.takes_any(step),
            Form::Send(from, to) => links.send(*to, self.view(from), request.tag),
            // First what the other rank waits for.
            Form::SendAndKeep(from, to, into) => {
                let sent = links.send(*to, self.view(from), request.tag)?;
                if sent {
                    kernel::copy(&[self.view(into)], self.view(from));
                }
                Ok(sent)
            }
            Form::Receive(from, into) => {
                let Some(payload) = self.message(*from, into.1.len())? else { return Ok(false) };
                kernel::copy(&[self.view(into)], payload);
                links.release(*from).map(|()| true)
            }
            Form::Reduce { with, from, swapped, finish, into } => {
                let Some(payload) = self.message(*from, into.1.len())? else { return Ok(false) };
                let with = self.view(with);
                let sources = if *swapped { [payload, with] } else { [with, payload] };
                request.combine(&[self.view(into)], &sources, *finish);
                links.release(*from).map(|()| true)
            }
            Form::Copy { from, finish, into } => {
                request.combine(&[self.view(into)], &[self.view(from)], *finish);
                Ok(true)
            }
            Form::Signal(to) => links.send(*to, View::empty(), request.tag),
            Form::Await(from) => {
                let come = self.message(*from, 0)?.is_some();
                if come { links.release(*from).map(|()| true) } else { Ok(false) }
            }
            Form::Any => self.takes_any(step),
        }
    }

    /// Takes a step of any form.
    #[inline(never)]
    fn takes_any(&self, step: usize) -> Result<bool> {
        let Self { links, request, route, chart, scratch } = *self;
        let board = route.board.as_ref().map_or_else(View::empty, Board::view);
        let memories = [request.input, request.output, scratch, board];
        let call = Call { request, extents: &chart.extents, memories, overflows: false };
        let tried = route.lanes[0][step].attempt(&chart.legs[0][step], 0, links, &call)?;
        Ok(matches!(tried, Tried::Done))
    }

    #[inline(always)]
    fn view(&self, Bytes(kind, bytes): &Bytes) -> View<'a> {
        let whole = match *kind {
            INPUT => self.request.input,
            OUTPUT => self.request.output,
            _ => self.scratch,
        };
        whole.part(bytes.clone())
    }

    /// The next message of a link, if it has come.
    #[inline(always)]
    fn message(&self, from: u32, len: usize) -> Result<Option<View<'a>>> {
        match self.links.peek(from)? {
            Some(message) if message.is(self.request.tag, len) => Ok(Some(message.payload)),
            Some(_) => Err(mismatch(self.request.signature, from, self.links)),
            None => Ok(None),
        }
    }
}

/// Whether a step may lend what it sends.
fn lends(step: &Move, leg: &Leg) -> bool {
    step.lends && leg.len >= WORTH_LENDING
}

impl Form {
    fn new(hop: &Hop, leg: &Leg) -> Self {
        let step = match hop {
            Hop::Move(step) => step,
            Hop::Signal(to) => return Self::Signal(*to),
            Hop::Await(from) => return Self::Await(*from),
            Hop::Post(_) | Hop::Join(_) => return Self::Any,
        };
        let on_board = |place: &Place| matches!(place, Place::Bytes(Bytes(BOARD, _)));
        let boards = leg.sources.iter().chain(&leg.places).any(on_board);
        if step.span.count != 1 || leg.len == 0 || lends(step, leg) || boards {
            return Self::Any;
        }
        let finish = step.finish;
        match (&leg.sources[..], &leg.places[..]) {
            ([Place::Bytes(from)], &[Place::Link(to)]) if !finish => Self::Send(from.clone(), to),
            // Longer ones are read once for both places.
            ([Place::Bytes(from)], &[Place::Bytes(ref into), Place::Link(to)])
                if !finish && leg.len < WORTH_LENDING =>
            {
                Self::SendAndKeep(from.clone(), to, into.clone())
            }
            (&[Place::Link(from)], [Place::Bytes(into)]) if !finish => Self::Receive(from, into.clone()),
            (
                [Place::Link(from), Place::Bytes(with)] | [Place::Bytes(with), Place::Link(from)],
                [Place::Bytes(into)],
            ) => Self::Reduce {
                with: with.clone(),
                from: *from,
                swapped: matches!(leg.sources[0], Place::Link(_)),
                finish,
                into: into.clone(),
            },
            ([Place::Bytes(from)], [Place::Bytes(into)]) => {
                Self::Copy { from: from.clone(), finish, into: into.clone() }
            }
            _ => Self::Any,
        }
    }
}
