//! What can be said of a plan without running it: spans, memories, peers, lanes.

use crate::plan::collective::{Collective, CollectiveKind};
use crate::plan::refusal::Refusal;
use crate::plan::step::{Memory, Plan, Span, Step};

type Check = Result<(), String>;

/// Checks every step of every rank by itself.
pub(super) fn check(collective: Collective, plans: &[Plan]) -> Result<(), Box<Refusal>> {
    let first = &plans[0];
    for (rank, plan) in plans.iter().enumerate() {
        let mine = (plan.blocks, plan.width);
        let theirs = (first.blocks, first.width);
        if mine != theirs {
            let problem = format!("(blocks, width) are {mine:?} here and {theirs:?} on rank 0");
            return Err(Refusal::plan(rank, problem));
        }
        if plan.board != first.board {
            let problem = format!("board banks are {} here and {} on rank 0", plan.board, first.board);
            return Err(Refusal::plan(rank, problem));
        }
        if plan.blocks == 0 || plan.width == 0 && plan.board == 0 || plan.lanes.len() > usize::from(u8::MAX) {
            return Err(Refusal::plan(rank, "no blocks, no width or too many lanes"));
        }
        let shape = Shape { collective, ranks: plans.len(), rank, plan };
        for (lane, steps) in plan.lanes.iter().enumerate() {
            for (number, step) in steps.steps.iter().enumerate() {
                let refuse = |problem| Refusal::step(plans, rank, lane, number, problem);
                shape.step(lane, step).map_err(refuse)?;
            }
        }
    }
    Ok(())
}

struct Shape<'a> {
    collective: Collective,
    ranks: usize,
    rank: usize,
    plan: &'a Plan,
}

impl Shape<'_> {
    fn step(&self, lane: usize, step: &Step) -> Check {
        match step {
            Step::Post(other) | Step::Join(other) => {
                let other = usize::from(*other);
                require(other != lane && other < self.plan.lanes.len(), || {
                    format!("there is no other lane {other}")
                })
            }
            Step::Signal(_) | Step::Await(_) => self.peers(step),
            Step::Move { sources, into, to, .. } => {
                require(!sources.is_empty(), || "it has no source".into())?;
                require(into.is_some() || !to.is_empty(), || "its result goes nowhere".into())?;
                let extent = step.extent().ok_or("it names no span, so nobody knows its length")?;
                for span in step.spans() {
                    self.span(span)?;
                    self.alike(span, extent)?;
                }
                into.iter().try_for_each(|&span| self.store(span))?;
                let carries = !to.is_empty() || step.senders().next().is_some();
                require(!carries || self.plan.width > 0, || {
                    "it sends or receives blocks, in a plan of width 0".into()
                })?;
                self.peers(step)
            }
        }
    }

    fn span(&self, span: Span) -> Check {
        let Plan { blocks, width, scratch, board, .. } = *self.plan;
        require(span.count > 0 && span.first < blocks && span.reach() <= blocks, || {
            format!("{span} is out of range: there are {blocks} blocks")
        })?;
        require(span.count <= width || width == 0, || {
            format!("{span} is wider than the plan's width, {width}")
        })?;
        match span.memory {
            Memory::Scratch(bank) => {
                require(bank < scratch, || format!("{span}: there are {scratch} scratch banks"))
            }
            Memory::Board(bank) => {
                let ranked = self.collective.kind == CollectiveKind::AllToAll;
                require(!ranked, || format!("{span}: blocks of {} differ by rank", self.collective.kind))?;
                require(bank < board, || format!("{span}: the board has {board} banks"))
            }
            Memory::Input => {
                self.all(span, |b| self.collective.has_input(self.rank, b), "is no input of this rank")
            }
            Memory::Output => Ok(()),
        }
    }

    /// Blocks have lengths of their own, so that only equal ones can be combined or copied.
    fn alike(&self, span: Span, extent: Span) -> Check {
        let same = (span.first, span.count, span.run) == (extent.first, extent.count, extent.run);
        let equal = span.count == extent.count && self.collective.kind == CollectiveKind::AllToAll;
        require(same || equal, || format!("{span} and {extent} are different blocks"))
    }

    fn store(&self, span: Span) -> Check {
        match span.memory {
            Memory::Input => Err(format!("it writes {span}, an input")),
            Memory::Output => {
                self.all(span, |b| self.collective.has_output(self.rank, b), "is no output of this rank")
            }
            Memory::Scratch(_) | Memory::Board(_) => Ok(()),
        }
    }

    fn peers(&self, step: &Step) -> Check {
        let senders: Vec<u32> = step.senders().collect();
        self.distinct(&senders, "from")?;
        self.distinct(step.receivers(), "to")
    }

    fn distinct(&self, peers: &[u32], word: &str) -> Check {
        for &peer in peers {
            require((peer as usize) < self.ranks && peer as usize != self.rank, || {
                format!("{word} {peer}: there is no such other rank of {}", self.ranks)
            })?;
        }
        if peers.len() < 2 {
            return Ok(());
        }
        let mut sorted = peers.to_vec();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("{word} {} twice in one step", pair[0])),
            None => Ok(()),
        }
    }

    fn all(&self, span: Span, has: impl Fn(usize) -> bool, problem: &str) -> Check {
        match span.blocks(self.plan.blocks).find(|&block| !has(block as usize)) {
            Some(block) => Err(format!("block {block} of {span} {problem}")),
            None => Ok(()),
        }
    }
}

fn require(holds: bool, problem: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(problem()) }
}
