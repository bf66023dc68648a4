//! Kernels: dst (+)= src, for every element type and operator, at any address.
//!
//! | elements        | are combined in | and then                                              |
//! | --------------- | --------------- | ----------------------------------------------------- |
//! | f64, f32        | their own type  | -                                                     |
//! | f16, bf16, fp8  | f32             | rounded once per fold, ties to even; fp8 saturates    |
//! | integers        | their own type  | wrap on overflow                                      |
//!
//! - `Min` and `Max` of floats: NaN where any input is; -0 lies below +0.
//! - `Average`: the sum, divided by the number of ranks by the fold that finishes. Floats: a division,
//!   before the one rounding. Integers: the wrapped sum, rounded toward zero.
//! - A NaN that arithmetic makes is the type's canonical one; one source alone, unfinished, is copied
//!   bit by bit.
//! - Operators of the library give the same bits for `a ⊕ b` and `b ⊕ a`, and on every processor: the
//!   loops are compiled for several ([`Variant`]), and all compute the same.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod codes;
mod combine;
mod few;
mod fold;
mod marks;
mod narrow;
mod number;
mod select;
mod user;
mod variant;

use std::fmt;
use std::ptr;
use std::sync::Arc;

pub use variant::Variant;

use crate::dtype::{Dtype, Element};
use crate::error::{Error, Result};
use crate::memory::{View, as_bytes};
use crate::op::{OpKind, ReduceOp};
use user::Combiner;
use variant::{Entries, Entry, Job};

/// The reduction of one call: element type, operator, number of ranks.
///
/// Made for the first of calls that are alike; then every fold costs one indirect call.
#[derive(Clone)]
pub struct Reducer {
    dtype: Dtype,
    op: OpKind,
    commutes: bool,
    ranks: usize,
    loops: Loops,
    /// What a contribution is multiplied by before anything else.
    prescale: Option<(Entry, [u8; 8])>,
}

#[derive(Clone)]
enum Loops {
    Library { fold: Entries, finish: Entries },
    User(Arc<dyn Combiner>),
}

impl Reducer {
    /// The reduction by `op` among `ranks` ranks.
    ///
    /// # Errors
    /// [`Usage`](crate::Kind::Usage): the operator is not for this element type.
    pub fn new<T: Element>(op: &ReduceOp<T>, ranks: usize) -> Result<Self> {
        match op {
            ReduceOp::User(user) => {
                let sum = Self::of(T::DTYPE, OpKind::Sum, ranks)?;
                let loops = Loops::User(Arc::new(user.clone()));
                Ok(Self { op: OpKind::User, commutes: user.commutes, loops, ..sum })
            }
            ReduceOp::PreMul(by) => Self::pre_multiplied(T::DTYPE, factor(*by), ranks),
            _ => Self::of(T::DTYPE, op.kind(), ranks),
        }
    }

    /// The sum of what is multiplied by a [`factor`] first.
    pub(crate) fn pre_multiplied(dtype: Dtype, factor: [u8; 8], ranks: usize) -> Result<Self> {
        let prescale = select::prescale(Variant::best(), dtype);
        let sum = Self::of(dtype, OpKind::Sum, ranks)?;
        Ok(Self { op: OpKind::PreMul, prescale: Some((prescale, factor)), ..sum })
    }

    /// Replaces the factor, where there is one.
    pub(crate) fn set_factor(&mut self, factor: [u8; 8]) {
        if let Some((_, old)) = &mut self.prescale {
            *old = factor;
        }
    }

    /// As [`new`](Self::new), for a type known only at run time and an operator without parameters.
    ///
    /// # Errors
    /// [`Usage`](crate::Kind::Usage): the operator is not for this element type, or has parameters.
    pub fn of(dtype: Dtype, op: OpKind, ranks: usize) -> Result<Self> {
        Self::by(Variant::best(), dtype, op, ranks)
    }

    /// As [`of`](Self::of), by the loops of one variant: to compare them.
    ///
    /// # Errors
    /// [`Usage`](crate::Kind::Usage): as above, or this processor lacks what the variant needs.
    pub fn compiled_for(variant: Variant, dtype: Dtype, op: OpKind, ranks: usize) -> Result<Self> {
        if !variant.runs_here() {
            return Err(Error::usage(format!("this processor does not run {variant} kernels")));
        }
        Self::by(variant, dtype, op, ranks)
    }

    fn by(variant: Variant, dtype: Dtype, op: OpKind, ranks: usize) -> Result<Self> {
        let [fold, finish] = loops(variant, dtype, op)?;
        let loops = Loops::Library { fold, finish };
        Ok(Self { dtype, op, commutes: true, ranks: ranks.max(1), loops, prescale: None })
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The operator.
    pub fn op(&self) -> OpKind {
        self.op
    }

    /// Whether a ⊕ b = b ⊕ a.
    pub fn commutes(&self) -> bool {
        self.commutes
    }

    /// sources\[0\] ⊕ sources\[1\] ⊕ …, from left to right, finished (an average's division) if asked,
    /// written to every destination. Each source is read once, each destination written once.
    ///
    /// All views have the same length, a multiple of the element's size, at any address. A destination
    /// may be the very place of a source, but must not overlap one partly.
    ///
    /// # Panics
    /// Where these rules are broken: the caller's mistake, not its user's.
    #[inline]
    pub fn fold(&self, destinations: &[View<'_>], sources: &[View<'_>], finish: bool) {
        if let (&[to], &[a, b], Loops::Library { fold, finish: finishing }) =
            (destinations, sources, &self.loops)
            && to.is_plain()
            && a.is_plain()
            && b.is_plain()
        {
            if !(is_whole(to.len(), self.dtype.size()) && to.is_writable() && fits(to, a) && fits(to, b)) {
                refuse(destinations, sources, self.dtype.size());
            }
            let entry = if finish { finishing.pair } else { fold.pair };
            // SAFETY: checked above; the variant runs here, or there would be no reducer.
            return unsafe { entry(to.as_ptr(), a.as_ptr(), b.as_ptr(), to.len(), self.ranks) };
        }
        self.fold_any(destinations, sources, finish);
    }

    fn fold_any(&self, destinations: &[View<'_>], sources: &[View<'_>], finish: bool) {
        check(destinations, sources, self.dtype.size());
        if let &[source] = sources
            && !(finish && self.op == OpKind::Average)
        {
            return copy(destinations, source);
        }
        match &self.loops {
            Loops::Library { fold, finish: finishing } => {
                let entry = if finish { finishing.any } else { fold.any };
                // SAFETY: checked above; the variant runs here, or there would be no reducer.
                unsafe { marks::run(entry, destinations, sources, self.ranks, [0; 8]) }
            }
            // SAFETY: checked above; the reducer's dtype is the operator's.
            Loops::User(combiner) => unsafe { combiner.fold(destinations, sources) },
        }
    }

    /// destination = source × the factor; a copy where there is none. In place or apart.
    ///
    /// # Panics
    /// As [`fold`](Self::fold).
    pub fn prescale(&self, destination: View<'_>, source: View<'_>) {
        let (destinations, sources) = (&[destination], &[source]);
        check(destinations, sources, self.dtype.size());
        match self.prescale {
            // SAFETY: checked above; the variant runs here, and the factor is an element.
            Some((entry, factor)) => unsafe { marks::run(entry, destinations, sources, 1, factor) },
            None => copy(destinations, source),
        }
    }
}

/// A factor of a pre-multiplied sum, without its type.
#[inline]
pub(crate) fn factor<T: Element>(factor: T) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..size_of::<T>()].copy_from_slice(as_bytes(&[factor]));
    bytes
}

/// The loops of an operator without parameters: those that combine, and those that finish as well.
fn loops(variant: Variant, dtype: Dtype, op: OpKind) -> Result<[Entries; 2]> {
    match select::fold(variant, dtype, op) {
        Some(_) if matches!(op, OpKind::PreMul | OpKind::User) => Err(not_for(dtype, op)),
        Some(fold) => Ok([fold, if op == OpKind::Average { select::average(variant, dtype) } else { fold }]),
        None => Err(not_for(dtype, op)),
    }
}

/// What to say of an operator that no loop of the library does for this type.
#[cold]
pub(crate) fn not_for(dtype: Dtype, op: OpKind) -> Error {
    Error::usage(match op {
        OpKind::PreMul | OpKind::User => format!("operator `{op}` needs its parameters"),
        _ => format!("operator `{op}` is for integers; {dtype} is a floating-point type"),
    })
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} among {}", self.op, self.dtype, self.ranks)
    }
}

/// Every destination = source, any bytes. The source is read once, each destination written once.
///
/// Among several destinations, one that is the source's own place is written like the others: its lines
/// belong to this core from then on, and whoever writes them next takes them from it at once instead of
/// from all who have read them. A copy onto itself alone moves nothing.
///
/// # Panics
/// As [`Reducer::fold`].
#[inline]
pub fn copy(destinations: &[View<'_>], source: View<'_>) {
    if let &[to] = destinations
        && (to.is_plain() && source.is_plain() || to.same_place(source))
    {
        if !(to.is_writable() && fits(to, source)) {
            refuse(destinations, &[source], 1);
        }
        let (from, to, count) = (source.as_ptr(), to.as_ptr(), source.len());
        return match count {
            _ if from == to => {}
            // SAFETY: checked above; so few bytes are moved so.
            0..=few::MOST => unsafe { few::copy(from, to, count) },
            // SAFETY: checked above: apart, equally long, and one is writable.
            _ => unsafe { ptr::copy_nonoverlapping(from, to, count) },
        };
    }
    copy_any(destinations, source);
}

fn copy_any(destinations: &[View<'_>], source: View<'_>) {
    check(destinations, &[source], 1);
    if source.len() <= few::MOST {
        for to in destinations {
            // SAFETY: checked above; so few bytes are moved so.
            unsafe { few::copy(source.as_ptr(), to.as_ptr(), source.len()) };
        }
        return;
    }
    let entry = select::copy(Variant::best());
    // SAFETY: checked above; the variant runs here.
    unsafe { marks::run(entry, destinations, &[source], 1, [0; 8]) }
}

/// Two copies, `(to, from)` each, in turns: while the one's reads are on their way, the other's writes are.
///
/// A core that only reads and then only writes what no cache holds does half of what memory could at a time. The
/// places of the one must not overlap those of the other.
///
/// # Panics
/// As [`Reducer::fold`].
pub fn copy_both(copies: [(View<'_>, View<'_>); 2]) {
    for (to, from) in copies {
        check(&[to], &[from], 1);
    }
    let mut left = copies;
    while left.iter().any(|(to, _)| !to.is_empty()) {
        for (to, from) in &mut left {
            let len = marks::block(*to);
            copy_block(to.part(0..len), from.part(0..len));
            (*to, *from) = (to.part(len..to.len()), from.part(len..from.len()));
        }
    }
    if copies.iter().any(|(to, _)| to.is_streamed()) {
        marks::fence();
    }
}

/// A block of a checked copy; see [`marks::fence`].
fn copy_block(to: View<'_>, from: View<'_>) {
    if to.is_plain() && from.is_plain() {
        // SAFETY: checked: in one place or apart, equally long, and one is writable.
        return unsafe { ptr::copy(from.as_ptr(), to.as_ptr(), from.len()) };
    }
    let (entry, range) = (select::copy(Variant::best()), 0..from.len());
    let (destinations, sources) = (&[to], &[from]);
    let job = Job { destinations, sources, range, streams: false, ranks: 1, factor: [0; 8] };
    // SAFETY: checked; the variant runs here.
    unsafe { marks::run_marked(entry, job) }
}

/// What every kernel relies on: views are equally long, a multiple of `size`; destinations are writable,
/// each the very place of a source or apart.
#[inline(always)]
fn check(destinations: &[View<'_>], sources: &[View<'_>], size: usize) {
    let sound = sources.first().is_some_and(|first| {
        let fits = |to: &View<'_>| to.is_writable() && sources.iter().all(|source| fits(*to, *source));
        let equal = sources.iter().all(|source| source.len() == first.len());
        is_whole(first.len(), size) && equal && destinations.iter().all(fits)
    });
    if !sound {
        refuse(destinations, sources, size);
    }
}

#[inline(always)]
fn is_whole(length: usize, size: usize) -> bool {
    length & (size - 1) == 0
}

/// Whether two views are equally long, and in one place or apart.
#[inline(always)]
fn fits(a: View<'_>, b: View<'_>) -> bool {
    // How far a begins behind b, and b behind a: one of the two wraps around, and is huge.
    let behind = a.as_ptr().addr().wrapping_sub(b.as_ptr().addr());
    let ahead = behind.wrapping_neg();
    a.len() == b.len() && (behind == 0 || (behind >= a.len() && ahead >= a.len()))
}

/// Says which rule is broken.
#[cold]
#[inline(never)]
fn refuse(destinations: &[View<'_>], sources: &[View<'_>], size: usize) -> ! {
    assert!(!sources.is_empty(), "a fold has at least one source");
    let length = sources[0].len();
    assert!(is_whole(length, size), "whole elements of {size} bytes, but there are {length} bytes");
    assert!(sources.iter().all(|source| source.len() == length), "sources of one fold are equally long");
    for to in destinations {
        assert!(to.is_writable(), "a destination is writable");
        assert!(to.len() == length, "a destination is as long as the sources");
    }
    panic!("a destination is a source's place or apart");
}
