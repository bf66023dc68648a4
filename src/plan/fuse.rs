//! Rewrites simple steps into fewer: what one step stores and the next one reads never has to be
//! stored, or at least not to be read again.
//!
//! A step B is merged into its forerunner A where B's first source is exactly what A stored:
//!
//! ```text
//!   A                B                       A and B
//!   x → s            s → r                   x → s → r        relay; no store if s is dead
//!   x → s            s → t                   x → t            if s is dead
//!   x → s            finish(s) → s           finish(x) → s
//!   x → s            s ⊕ y → s | t → r       x ⊕ y → s | t → r  if s is overwritten or dead
//! ```
//!
//! A step that names no span is not made, since nobody would know its length. A scratch span is dead when
//! this lane does not read it again in this round; a bank that several lanes touch is never dead, nor is the
//! board. What lies on the board between two steps, without a signal between them, is nobody's to read.

use super::step::{Lane, Memory, Plan, Source, Span, Step};

/// The same plan with its steps fused.
pub fn fuse(plan: &Plan) -> Plan {
    let private = private_banks(plan);
    let lanes = plan.lanes.iter().map(|lane| fuse_lane(plan, lane, &private)).collect();
    let mut fused = Plan { lanes, ..*plan };
    fused.count_scratch();
    fused
}

/// For each bank, whether at most one lane touches it.
fn private_banks(plan: &Plan) -> Vec<bool> {
    let mut owner: Vec<Option<usize>> = vec![None; plan.scratch.into()];
    let mut private = vec![true; plan.scratch.into()];
    for (index, lane) in plan.lanes.iter().enumerate() {
        for span in lane.steps.iter().flat_map(Step::spans) {
            if let Memory::Scratch(bank) = span.memory {
                let bank = usize::from(bank);
                private[bank] &= *owner[bank].get_or_insert(index) == index;
            }
        }
    }
    private
}

fn fuse_lane(plan: &Plan, lane: &Lane, private: &[bool]) -> Lane {
    let mut steps: Vec<Step> = Vec::with_capacity(lane.steps.len());
    let mut draft = Draft::default();
    for (step, dead) in lane.steps.iter().zip(dead_after(plan, lane, private)) {
        if !draft.merge(step, dead) {
            steps.extend(draft.take());
            match step {
                Step::Move { .. } => draft.begin(step),
                _ => steps.push(step.clone()),
            }
        }
    }
    steps.extend(draft.take());
    steps.shrink_to_fit();
    Lane { channel: lane.channel, steps }
}

/// For each step, whether its first source is a scratch span that nobody reads afterwards.
fn dead_after(plan: &Plan, lane: &Lane, private: &[bool]) -> Vec<bool> {
    let blocks = plan.blocks as usize;
    let mut live = vec![false; blocks * private.len()];
    let place = |span: Span| match span.memory {
        Memory::Scratch(bank) => Some(usize::from(bank)),
        Memory::Input | Memory::Output | Memory::Board(_) => None,
    };
    let mut dead = vec![false; lane.steps.len()];
    for (index, step) in lane.steps.iter().enumerate().rev() {
        let Step::Move { sources, into, .. } = step else { continue };
        if let Some(&Source::Local(span)) = sources.first() {
            dead[index] = place(span).is_some_and(|bank| {
                private[bank] && span.blocks(plan.blocks).all(|b| !live[bank * blocks + b as usize])
            });
        }
        if let Some((span, bank)) = into.and_then(|span| Some((span, place(span)?))) {
            span.blocks(plan.blocks).for_each(|b| live[bank * blocks + b as usize] = false);
        }
        for span in sources.iter().filter_map(|source| source.span()) {
            if let Some(bank) = place(span) {
                span.blocks(plan.blocks).for_each(|b| live[bank * blocks + b as usize] = true);
            }
        }
    }
    dead
}

/// The step that others are being merged into.
#[derive(Default)]
struct Draft {
    sources: Vec<Source>,
    finish: bool,
    into: Option<Span>,
    to: Vec<u32>,
}

impl Draft {
    fn begin(&mut self, step: &Step) {
        let Step::Move { sources, finish, into, to } = step else { return };
        self.sources.extend_from_slice(sources);
        self.to.extend_from_slice(to);
        (self.finish, self.into) = (*finish, *into);
    }

    /// The finished step, if there is one.
    fn take(&mut self) -> Option<Step> {
        if self.sources.is_empty() {
            return None;
        }
        let sources = self.sources.drain(..).collect();
        let to = self.to.drain(..).collect();
        Some(Step::Move { sources, finish: self.finish, into: self.into, to })
    }

    /// Takes `step` in, if that can be; `dead` says that its first source is not read after it.
    fn merge(&mut self, step: &Step, dead: bool) -> bool {
        let Step::Move { sources, finish, into, to } = step else { return false };
        let Some(stored) = self.into else { return false };
        let Some((&first, rest)) = sources.split_first() else { return false };
        if first != Source::Local(stored) || rest.iter().any(|&source| self.hinders(source, stored)) {
            return false;
        }
        if rest.is_empty() && !finish && into.is_none() {
            // Passed on as it is, so that it may have been sent before and may be kept.
            if to.iter().any(|rank| self.to.contains(rank)) {
                return false;
            }
            self.into = self.into.filter(|_| !dead);
        } else {
            // From here on only this step sees what was stored, so that its result can take that place.
            let finished_early = self.finish && (*finish || !rest.is_empty());
            if !self.to.is_empty() || finished_early || !(dead || *into == Some(stored)) {
                return false;
            }
            self.sources.extend_from_slice(rest);
            self.finish |= finish;
            self.into = *into;
        }
        self.to.extend_from_slice(to);
        // A step must name a span, or nobody knows its length.
        if self.into.is_none() && self.sources.iter().all(|source| source.span().is_none()) {
            self.into = Some(stored);
        }
        true
    }

    /// Whether a source cannot move before the store of `stored`: it may read it, or it is the second
    /// message from one rank, for which there may be no room while the first one waits.
    fn hinders(&self, source: Source, stored: Span) -> bool {
        match source {
            Source::Local(span) => span.memory == stored.memory,
            Source::From(_) => self.sources.contains(&source),
        }
    }
}
