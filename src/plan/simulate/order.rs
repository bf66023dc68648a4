//! What happens before what, by vector clocks: a clock per lane, carried by messages and tokens.
//!
//! Credit orders nothing here, since a link may have more of it: so what is proved holds at any credit.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::plan::net::Net;

/// The clock of some lane at some step, as a message or token carries it.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    lane: u32,
    tick: u32,
    known: Rc<Vec<u32>>,
}

/// The clock of a lane: its own steps, and how many of every other's happened before.
#[derive(Clone, Debug)]
struct Clock {
    tick: u32,
    known: Rc<Vec<u32>>,
}

/// Who touched a block of some rank's memory since it was written last.
#[derive(Clone, Debug, Default)]
struct Access {
    /// The lane and its tick.
    writer: Option<(u32, u32)>,
    readers: Vec<(u32, u32)>,
    /// The links over which it is lent, and the number of the message on each.
    lent: Vec<(u32, u32)>,
}

/// What happened before what, in one run.
#[derive(Debug)]
pub(super) struct Order {
    clocks: Vec<Clock>,
    /// For each link, the stamps of the waiting messages.
    stamps: Vec<VecDeque<Stamp>>,
    /// For each link, how many messages were sent.
    sent: Vec<u32>,
    /// For each link, when its consumer took each message, in the consumer's ticks.
    taken: Vec<Vec<u32>>,
    /// For each rank and the board, and each cell; no cells where nothing can conflict.
    access: Vec<Vec<Access>>,
}

impl Order {
    /// Nothing has happened; `cells` says for each rank and the board how many blocks are watched.
    pub(super) fn new<L>(net: &Net<L>, cells: impl Iterator<Item = usize>) -> Self {
        let nothing = Rc::new(vec![0; net.lanes.len()]);
        let links = net.links.len();
        Self {
            clocks: vec![Clock { tick: 0, known: nothing }; net.lanes.len()],
            stamps: vec![VecDeque::new(); links],
            sent: vec![0; links],
            taken: vec![Vec::new(); links],
            access: cells.map(|count| vec![Access::default(); count]).collect(),
        }
    }

    /// A step of `lane` begins.
    pub(super) fn step(&mut self, lane: usize) {
        self.clocks[lane].tick += 1;
    }

    /// What a token or message of `lane` carries now.
    pub(super) fn stamp(&self, lane: usize) -> Stamp {
        let Clock { tick, known } = &self.clocks[lane];
        Stamp { lane: lane as u32, tick: *tick, known: Rc::clone(known) }
    }

    /// `lane` learns what happened before `stamp`.
    pub(super) fn learn(&mut self, lane: usize, stamp: &Stamp) {
        let known = Rc::make_mut(&mut self.clocks[lane].known);
        for (mine, theirs) in known.iter_mut().zip(&*stamp.known) {
            *mine = (*mine).max(*theirs);
        }
        let sender = &mut known[stamp.lane as usize];
        *sender = (*sender).max(stamp.tick);
    }

    /// `lane` sends over `link`.
    pub(super) fn send(&mut self, lane: usize, link: usize) {
        let stamp = self.stamp(lane);
        self.stamps[link].push_back(stamp);
        self.sent[link] += 1;
    }

    /// `lane` takes the message that waits first on `link`.
    pub(super) fn receive(&mut self, lane: usize, link: usize) {
        if let Some(stamp) = self.stamps[link].pop_front() {
            self.learn(lane, &stamp);
        }
        self.taken[link].push(self.clocks[lane].tick);
    }

    /// `lane` reads a cell of its rank, or of the board. Fails with the lane that wrote it meanwhile.
    pub(super) fn read(&mut self, lane: usize, owner: usize, cell: usize) -> Result<(), u32> {
        let Some(access) = self.access[owner].get_mut(cell) else { return Ok(()) };
        let clock = &self.clocks[lane];
        if let Some(writer) = access.writer.filter(|&event| !clock.after(lane, event)) {
            return Err(writer.0);
        }
        match access.readers.iter_mut().find(|reader| reader.0 == lane as u32) {
            Some(reader) => reader.1 = clock.tick,
            None => access.readers.push((lane as u32, clock.tick)),
        }
        Ok(())
    }

    /// The cell is lent with the next message over `link`.
    pub(super) fn lend(&mut self, owner: usize, cell: usize, link: usize) {
        let number = self.sent[link];
        if let Some(access) = self.access[owner].get_mut(cell) {
            access.lent.push((link as u32, number));
        }
    }

    /// `lane` writes a cell of its rank, or of the board.
    pub(super) fn write<L>(
        &mut self,
        lane: usize,
        owner: usize,
        cell: usize,
        net: &Net<L>,
    ) -> Result<(), Conflict> {
        let Some(access) = self.access[owner].get_mut(cell) else { return Ok(()) };
        let clock = &self.clocks[lane];
        let busy = access.lent.iter().find(|&&(link, number)| {
            let taken = self.taken[link as usize].get(number as usize);
            let consumer = net.links[link as usize].consumer;
            taken.is_none_or(|&tick| !clock.after(lane, (consumer, tick)))
        });
        if let Some(&(link, _)) = busy {
            return Err(Conflict::Lent(net.lanes[net.links[link as usize].consumer as usize].rank));
        }
        let unordered = access.readers.iter().chain(&access.writer).find(|&&event| !clock.after(lane, event));
        if let Some(&(other, _)) = unordered {
            return Err(Conflict::Lane(other));
        }
        *access = Access { writer: Some((lane as u32, clock.tick)), ..Access::default() };
        Ok(())
    }

    /// A lane of which nothing happened before the last step of any of `lanes`.
    pub(super) fn unheard(&self, lanes: std::ops::Range<usize>) -> Option<usize> {
        let heard = |other: usize| lanes.clone().any(|lane| self.clocks[lane].known[other] > 0);
        (0..self.clocks.len()).find(|other| !lanes.contains(other) && !heard(*other))
    }
}

impl Clock {
    /// Whether (lane, tick) happened before the present step of `me`, whose clock this is.
    fn after(&self, me: usize, (lane, tick): (u32, u32)) -> bool {
        lane as usize == me || self.known[lane as usize] >= tick
    }
}

/// Why a block may not be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Conflict {
    /// That rank may still read it.
    Lent(u32),
    /// That lane reads or writes it at no certain time.
    Lane(u32),
}
