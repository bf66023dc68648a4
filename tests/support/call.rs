//! A collective with all that ranks must agree on: drawn at random, made, and each element of its result compared with a
//! closed form.

use kolo::CollectiveKind::{self, *};
use kolo::{Communicator, Dtype, Element, ReduceOp, Result, algorithm};

use super::plain::Random;

/// The most elements of a vector.
pub const LARGEST: usize = 400_000;

const KINDS: [CollectiveKind; 8] =
    [AllReduce, ReduceScatter, AllGather, Broadcast, Reduce, Gather, Scatter, AllToAll];
const DTYPES: [Dtype; 3] = [Dtype::U64, Dtype::F32, Dtype::I32];
const ALGORITHMS: [&str; 3] = ["direct", "ring", "tree"];
/// Stands where nothing was written yet.
const UNWRITTEN: f64 = 77.0;

/// What a reduction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Sum,
    Max,
    Min,
}

/// A call, and what its numbers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub kind: CollectiveKind,
    pub dtype: Dtype,
    pub op: Op,
    pub root: usize,
    /// Of the vector, or of each rank's block.
    pub count: usize,
    pub algorithm: &'static str,
    /// Tells the numbers of one call from those of another.
    pub salt: usize,
}

impl Call {
    /// Any call on so many ranks.
    pub fn draw(random: &mut Random, size: usize) -> Self {
        let kind = KINDS[random.below(KINDS.len())];
        // One packed message, a message, several rounds, more than caches hold.
        let whole = match random.below(8) {
            0..=2 => 1 + random.below(16),
            3 | 4 => 1 + random.below(2_000),
            5 | 6 => 2_000 + random.below(60_000),
            _ => LARGEST / 2 + random.below(LARGEST / 2),
        };
        let blocks = if matches!(kind, AllReduce | Broadcast | Reduce) { 1 } else { size };
        Self {
            kind,
            dtype: DTYPES[random.below(DTYPES.len())],
            op: [Op::Sum, Op::Max, Op::Min][random.below(3)],
            root: random.below(size),
            count: (whole / blocks).max(1),
            algorithm: "direct",
            salt: random.below(1000),
        }
        .by_any_algorithm(random)
    }

    /// The same by one of the algorithms that do it.
    pub fn by_any_algorithm(mut self, random: &mut Random) -> Self {
        let able: Vec<_> = ALGORITHMS.into_iter().filter(|name| does(name, self.kind)).collect();
        self.algorithm = able[random.below(able.len())];
        self
    }

    /// A call that one field tells from this one, and that field's name.
    pub fn differing(&self, random: &mut Random, size: usize) -> (Self, &'static str) {
        loop {
            let (mut other, fresh) = (*self, Self::draw(random, size));
            let field = match random.below(6) {
                0 => {
                    other.count = if random.below(2) == 0 { self.count + 1 } else { fresh.count };
                    "count"
                }
                1 => {
                    other.dtype = fresh.dtype;
                    "dtype"
                }
                2 if matches!(self.kind, AllReduce | ReduceScatter | Reduce) => {
                    other.op = fresh.op;
                    "operator"
                }
                3 if self.kind.rooted() => {
                    other.root = fresh.root;
                    "root"
                }
                4 => {
                    other.kind = fresh.kind;
                    other =
                        if does(self.algorithm, fresh.kind) { other } else { other.by_any_algorithm(random) };
                    "collective"
                }
                5 => {
                    other = other.by_any_algorithm(random);
                    "algorithm"
                }
                _ => continue,
            };
            if other != *self {
                return (other, field);
            }
        }
    }

    /// How errors write it.
    pub fn words(&self, size: usize) -> Vec<String> {
        let Self { kind, dtype, op, root, count, algorithm, .. } = *self;
        let whole = if matches!(kind, AllReduce | Broadcast | Reduce) { count } else { size * count };
        let mut words = vec![format!("{kind} #"), format!("({whole} x {dtype}"), format!(", {algorithm},")];
        if matches!(kind, AllReduce | ReduceScatter | Reduce) {
            words.push(format!(", {op:?},").to_lowercase());
        }
        if kind.rooted() {
            words.push(format!(", root {root},"));
        }
        words
    }

    /// Makes it, and says whether each element of the result is what it should be. An all-reduce of u64 may take place in
    /// `lent` memory.
    pub fn make(&self, ranks: &mut Communicator, lent: Option<&mut [u64]>) -> Result<bool> {
        ranks.set_algorithm(self.kind, Some(self.algorithm))?;
        let outcome = match (self.dtype, lent) {
            (Dtype::U64, Some(lent)) if self.kind == AllReduce => self.make_in(ranks, lent),
            (Dtype::U64, _) => self.make_of::<u64>(ranks),
            (Dtype::F32, _) => self.make_of::<f32>(ranks),
            (_, _) => self.make_of::<i32>(ranks),
        };
        // A communicator that comes of this one has its settings: they are to be alike wherever a rank was when one died.
        ranks.set_algorithm(self.kind, None)?;
        outcome
    }

    fn make_in(&self, ranks: &mut Communicator, lent: &mut [u64]) -> Result<bool> {
        let place = (ranks.rank(), ranks.size());
        let data = &mut lent[..self.count];
        data.iter_mut()
            .enumerate()
            .for_each(|(index, element)| *element = self.element(place.0, index) as u64);
        ranks.all_reduce_in_place(data, self.operator())?;
        Ok((0..self.count).all(|index| data[index] as usize == self.expected(place, index)))
    }

    fn make_of<T: Element + PartialEq>(&self, ranks: &mut Communicator) -> Result<bool> {
        let &Self { kind, root, count, .. } = self;
        let place @ (rank, size) = (ranks.rank(), ranks.size());
        let all = size * count;
        let of_root = |len| if rank == root { len } else { 0 };
        let (sent, got) = match kind {
            AllReduce => (count, count),
            ReduceScatter => (all, count),
            AllGather => (count, all),
            Broadcast => (0, count),
            Reduce => (count, of_root(count)),
            Gather => (count, of_root(all)),
            Scatter => (of_root(all), count),
            AllToAll => (all, all),
            Barrier => (0, 0),
        };
        let number = |number: usize| T::from_f64(number as f64);
        let input: Vec<T> = (0..sent).map(|index| number(self.element(rank, index))).collect();
        let mut output = vec![T::from_f64(UNWRITTEN); got];
        match kind {
            AllReduce => ranks.all_reduce(&input, &mut output, self.operator()),
            ReduceScatter => ranks.reduce_scatter(&input, &mut output, self.operator()),
            AllGather => ranks.all_gather(&input, &mut output),
            Broadcast => {
                let own = if rank == root { &mut output[..] } else { &mut [] };
                own.iter_mut().enumerate().for_each(|(index, it)| *it = number(self.element(rank, index)));
                ranks.broadcast(&mut output, root)
            }
            Reduce => ranks.reduce(&input, &mut output, self.operator(), root),
            Gather => ranks.gather(&input, &mut output, root),
            Scatter => ranks.scatter(&input, &mut output, root),
            AllToAll => ranks.all_to_all(&input, &mut output),
            Barrier => ranks.barrier(),
        }?;
        Ok(output.iter().enumerate().all(|(index, it)| *it == number(self.expected(place, index))))
    }

    fn operator<T: Element>(&self) -> ReduceOp<T> {
        match self.op {
            Op::Sum => ReduceOp::Sum,
            Op::Max => ReduceOp::Max,
            Op::Min => ReduceOp::Min,
        }
    }

    /// Element `index` of a rank's input: small, so that sums of few ranks are exact in any type.
    fn element(&self, rank: usize, index: usize) -> usize {
        (rank * 31 + index * 7 + self.salt * 13) % 251
    }

    /// Element `index` of the result.
    fn expected(&self, (rank, size): (usize, usize), index: usize) -> usize {
        let (block, within) = (index / self.count, index % self.count);
        match self.kind {
            AllReduce | Reduce => self.reduced(size, index),
            ReduceScatter => self.reduced(size, rank * self.count + index),
            AllGather | Gather => self.element(block, within),
            Broadcast => self.element(self.root, index),
            Scatter => self.element(self.root, rank * self.count + index),
            AllToAll => self.element(block, rank * self.count + within),
            Barrier => unreachable!("it has no result"),
        }
    }

    fn reduced(&self, size: usize, index: usize) -> usize {
        let elements = (0..size).map(|rank| self.element(rank, index));
        match self.op {
            Op::Sum => elements.sum(),
            Op::Max => elements.max().expect("there are ranks"),
            Op::Min => elements.min().expect("there are ranks"),
        }
    }
}

fn does(name: &str, kind: CollectiveKind) -> bool {
    algorithm::find(name).expect("it is one of kolo's").does(kind)
}
