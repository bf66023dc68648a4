//! A plan whose ranks have become links: what the engine walks.

use std::sync::Arc;

use super::board::Board;
use super::link::Links;
use crate::plan::{Memory, Plan, Source, Span, Step, given};
use crate::topology::{Channel, MOST_RAILS, RAIL};

/// A peer's stream, as plans name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The peer, as this communicator numbers it.
    pub peer: u32,
    /// Which of its streams.
    pub channel: Channel,
}

/// What a [`Hop`] reads or writes.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// Blocks of this rank.
    Local(Span),
    /// The next message of that link: that comes, or is to be sent.
    Link(u32),
}

/// A [`Step`] whose peers are places in the engine's list of links.
#[derive(Clone, Debug)]
pub enum Hop {
    /// See [`Step::Move`].
    Move(Move),
    /// See [`Step::Post`].
    Post(u8),
    /// See [`Step::Join`].
    Join(u8),
    /// See [`Step::Signal`]; the link.
    Signal(u32),
    /// See [`Step::Await`]; the link.
    Await(u32),
}

/// A [`Step::Move`] over links.
#[derive(Clone, Debug)]
pub struct Move {
    /// See there.
    pub sources: Box<[Operand]>,
    /// See there.
    pub finish: bool,
    /// Where the result goes: it is stored first, if at all, then sent.
    pub places: Box<[Operand]>,
    /// The blocks that it moves, in any of the spans.
    pub span: Span,
    /// Whether it may lend its source instead of copying it.
    pub lends: bool,
    /// Whether its rank receives besides, so that it need not be the one that copies.
    pub exchanges: bool,
    /// Whether its receiver may store an answer there, too, where the call is in place; see [`given`].
    pub gives: bool,
    /// Whether its result goes back on the link that a source of it came from.
    pub answers: bool,
}

impl Move {
    fn reads_vectors(&self) -> bool {
        let vector = |span: &Span| matches!(span.memory, Memory::Input | Memory::Output);
        self.sources.iter().any(|source| matches!(source, Operand::Local(span) if vector(span)))
    }
}

impl Move {
    /// The link and the block, if it stores a message in one block of the caller's vectors, and does nothing else.
    pub fn receives(&self) -> Option<(u32, Span)> {
        match (&self.sources[..], &self.places[..]) {
            (&[Operand::Link(from)], &[Operand::Local(to)]) => self.is_plain(to).then_some((from, to)),
            _ => None,
        }
    }

    /// The block and the link, if it sends one block of the caller's vectors, and does nothing else.
    pub fn sends(&self) -> Option<(Span, u32)> {
        match (&self.sources[..], &self.places[..]) {
            (&[Operand::Local(from)], &[Operand::Link(to)]) => self.is_plain(from).then_some((from, to)),
            _ => None,
        }
    }

    fn is_plain(&self, span: Span) -> bool {
        matches!(span.memory, Memory::Input | Memory::Output) && span.count == 1 && !self.finish
    }
}

/// A plan, ready to be walked by one engine.
#[derive(Debug)]
pub struct Route {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its lanes' steps, rail by rail: rounds are dealt to the rails in turn. What one rail does touches nothing of
    /// another's: no link, and no bytes, since rounds share none but scratch, which each rail has for itself.
    pub lanes: Vec<Vec<Hop>>,
    /// How many rails there are.
    pub rails: usize,
    /// The links that it uses.
    pub links: Vec<u32>,
    /// What its ranks share, where the plan has a board.
    pub board: Option<Board>,
    /// Whether nothing on its links moves by this rank's own effort alone: what comes, comes by itself.
    pub prompt: bool,
    /// Whether a step of it reads the caller's vectors. Where none does, it does not matter that they are one.
    pub reads: bool,
}

/// The streams that a plan needs on so many rails, in ascending order.
pub fn ports(plan: &Plan, rails: usize) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (rail, lane) in (0..rails).flat_map(|rail| plan.lanes.iter().map(move |lane| (rail, lane))) {
        for step in &lane.steps {
            let peers = step.senders().chain(step.receivers().iter().copied());
            ports.extend(peers.map(|peer| Port { peer, channel: on_rail(lane.channel, rail) }));
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn on_rail(channel: Channel, rail: usize) -> Channel {
    debug_assert!(rail == 0 || channel < RAIL && rail < MOST_RAILS);
    channel + rail as Channel * RAIL
}

impl Route {
    /// The plan over links, all of which are open on so many rails, and its board, if it has one.
    pub fn new(plan: Arc<Plan>, board: Option<Board>, links: &Links, rails: usize) -> Self {
        let link = |port| links.find(port).expect("the plan's streams are open");
        let given = given(&plan);
        let exchanges =
            plan.lanes.iter().flat_map(|lane| &lane.steps).any(|step| step.senders().next().is_some());
        let on = |rail: usize| {
            let (plan, given) = (&plan, &given);
            plan.lanes.iter().zip(given).map(move |(lane, given)| -> Vec<Hop> {
                let place = |peer: u32| link(Port { peer, channel: on_rail(lane.channel, rail) });
                let sibling = |lane: u8| lane + (rail * plan.lanes.len()) as u8;
                let steps = lane.steps.iter().zip(given);
                let kind = |gives: &bool| Kind { lends: plan.lends, exchanges, gives: *gives };
                steps.map(|(step, gives)| hop(step, kind(gives), &place, &sibling)).collect()
            })
        };
        let lanes: Vec<Vec<Hop>> = (0..rails).flat_map(on).collect();
        let reads = lanes.iter().flatten().any(|hop| matches!(hop, Hop::Move(step) if step.reads_vectors()));
        let used: Vec<u32> = ports(&plan, rails).into_iter().map(link).collect();
        let prompt = used.iter().all(|&at| links.at(at).watch().is_none());
        Self { plan, lanes, rails, links: used, board, prompt, reads }
    }
}

/// What of a plan and its lane counts for a step's hop.
struct Kind {
    lends: bool,
    exchanges: bool,
    gives: bool,
}

fn hop(
    step: &Step,
    Kind { lends, exchanges, gives }: Kind,
    place: &impl Fn(u32) -> u32,
    sibling: &impl Fn(u8) -> u8,
) -> Hop {
    match step {
        Step::Move { sources, finish, into, to } => Hop::Move(Move {
            answers: matches!(to[..], [back] if sources.contains(&Source::From(back))),
            sources: sources
                .iter()
                .map(|source| match *source {
                    Source::Local(span) => Operand::Local(span),
                    Source::From(rank) => Operand::Link(place(rank)),
                })
                .collect(),
            finish: *finish,
            places: {
                let sent = to.iter().map(|&rank| Operand::Link(place(rank)));
                into.iter().map(|span| Operand::Local(*span)).chain(sent).collect()
            },
            span: step.extent().expect("the prover refuses steps without a span"),
            lends: lends && !finish && sources.len() == 1 && to.len() == 1,
            exchanges,
            gives,
        }),
        Step::Post(lane) => Hop::Post(sibling(*lane)),
        Step::Join(lane) => Hop::Join(sibling(*lane)),
        Step::Signal(rank) => Hop::Signal(place(*rank)),
        Step::Await(rank) => Hop::Await(place(*rank)),
    }
}
