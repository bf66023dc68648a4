//! What a plan is called: a number that is equal on all builds and machines.

use super::step::{Memory, Plan, Source, Span, Step};

/// Odd constants without structure (the fractions of the golden ratio and of the square root of 3).
const MULTIPLIERS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbb67_ae85_84ca_a73b];

/// A permutation of 64 bits in which every bit depends on every other (Stafford's mix 13).
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes words in order.
struct Hash(u64);

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = mix(self.0.wrapping_mul(MULTIPLIERS[1]) ^ word.wrapping_mul(MULTIPLIERS[0]));
    }

    fn span(&mut self, span: Span) {
        let memory = match span.memory {
            Memory::Input => 0,
            Memory::Output => 1,
            Memory::Scratch(bank) => 2 + u64::from(bank),
            Memory::Board(bank) => 1 << 16 | u64::from(bank),
        };
        self.word(memory << 32 | u64::from(span.run));
        self.word(u64::from(span.first) << 32 | u64::from(span.count));
    }

    /// Every list and choice is preceded by its length or number, so that no two plans read alike.
    fn step(&mut self, step: &Step) {
        match step {
            Step::Post(lane) => self.word(1 << 8 | u64::from(*lane)),
            Step::Join(lane) => self.word(2 << 8 | u64::from(*lane)),
            Step::Signal(rank) => self.word(4 << 8 | u64::from(*rank) << 16),
            Step::Await(rank) => self.word(5 << 8 | u64::from(*rank) << 16),
            Step::Move { sources, finish, into, to } => {
                let shape = u64::from(*finish) | u64::from(into.is_some()) << 1;
                self.word(3 << 8 | shape | (sources.len() as u64) << 16 | (to.len() as u64) << 40);
                for source in sources {
                    match *source {
                        Source::Local(span) => self.span(span),
                        Source::From(rank) => self.word(1 << 63 | u64::from(rank)),
                    }
                }
                into.iter().for_each(|&span| self.span(span));
                to.iter().for_each(|&rank| self.word(u64::from(rank)));
            }
        }
    }
}

impl Plan {
    /// A number that names this rank's plan.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Hash(MULTIPLIERS[0]);
        hash.word(u64::from(self.blocks) << 32 | u64::from(self.width));
        hash.word(u64::from(self.board) << 16 | u64::from(self.scratch) << 1 | u64::from(self.lends));
        for lane in &self.lanes {
            hash.word((lane.steps.len() as u64) << 8 | u64::from(lane.channel));
            lane.steps.iter().for_each(|step| hash.step(step));
        }
        hash.0
    }
}

/// The number that names the plan of all ranks, from their fingerprints in rank order.
pub fn plan_id(fingerprints: impl IntoIterator<Item = u64>) -> u64 {
    let mut hash = Hash(MULTIPLIERS[1]);
    let mut ranks = 0;
    for fingerprint in fingerprints {
        hash.word(fingerprint);
        ranks += 1;
    }
    hash.word(ranks);
    hash.0
}
