//! Memory that the ranks of a host allocate together, so that a link can lend it.
//!
//! ```text
//! | register | part of member 0 ...... | part of member 1 ...... | ...      one region, which all members map
//!   a page     whole pages
//! ```
//! A number and an offset name a place of it in every process. The register counts the parts that nobody uses
//! any more: when all are, each member unmaps the region, at its next allocation or with its job.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Region, View};
use crate::error::{Error, Result};
use crate::sys::os;

/// One allocation, as one of its members sees it.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// The same on all members.
    number: u64,
    region: Region,
    /// Whose the parts are, as the job numbers ranks.
    members: Vec<u32>,
    /// This rank's place among them.
    mine: usize,
    /// The bytes of a part that are used, and those from one part to the next.
    len: usize,
    stride: usize,
    /// Whether pages of this rank's part are its own by now: nothing of it is lent any more.
    detached: AtomicBool,
}

impl Allocation {
    /// The bytes of a region of that many parts of `len` bytes; nothing where no address space holds them.
    pub(crate) fn size(len: usize, parts: usize) -> Option<usize> {
        let part = len.checked_next_multiple_of(os::page())?;
        let size = part.checked_mul(parts)?.checked_add(os::page())?;
        isize::try_from(size).is_ok().then_some(size)
    }

    /// The allocation in a region of [`size`](Self::size) bytes, which nobody used before; `members` are the ranks
    /// that map it, and the part is that of the `mine`-th.
    pub(crate) fn map(number: u64, region: Region, members: Vec<u32>, mine: usize, len: usize) -> Part {
        debug_assert_eq!(Self::size(len, members.len()), Some(region.view().len()));
        let (stride, detached) = (len.next_multiple_of(os::page()), AtomicBool::new(false));
        Part(Arc::new(Self { number, region, members, mine, len, stride, detached }))
    }

    /// This rank's part.
    fn part(&self) -> View<'_> {
        self.region.view().part(self.range(self.mine))
    }

    /// Where a member's part lies.
    fn range(&self, member: usize) -> Range<usize> {
        let start = os::page() + member * self.stride;
        start..start + self.len
    }

    /// Where a view begins, if it lies in this rank's part.
    fn offset(&self, view: View<'_>) -> Option<usize> {
        let start = view.as_ptr().addr().wrapping_sub(self.region.view().as_ptr().addr());
        let part = self.range(self.mine);
        (part.start <= start && start <= part.end && view.len() <= part.end - start).then_some(start)
    }

    fn has(&self, rank: u32) -> bool {
        self.members.contains(&rank)
    }

    /// The pages of some bytes.
    fn pages(bytes: Range<usize>) -> Range<usize> {
        let within = os::page() - 1;
        bytes.start & !within..(bytes.end + within) & !within
    }

    /// How many parts nobody uses any more.
    fn register(&self) -> &AtomicU32 {
        // SAFETY: the region begins with a page for it, zero at first, that members touch by this atomic alone.
        unsafe { AtomicU32::from_ptr(self.region.view().as_ptr().cast()) }
    }

    fn is_deserted(&self) -> bool {
        self.register().load(Ordering::Acquire) as usize >= self.members.len()
    }
}

/// A rank's part of an allocation, for it alone to use. Dropped, it takes no memory any more.
#[derive(Debug)]
pub(crate) struct Part(Arc<Allocation>);

impl Part {
    /// Its bytes, zeros at first, from a page's boundary on.
    pub(crate) fn view(&self) -> View<'_> {
        self.0.part()
    }

    /// What it is a part of.
    pub(crate) fn allocation(&self) -> Arc<Allocation> {
        self.0.clone()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Self(allocation) = self;
        if !allocation.detached.load(Ordering::Relaxed) {
            let pages = allocation.region.view().part(Allocation::pages(allocation.range(allocation.mine)));
            // SAFETY: whole pages of this part, which nobody uses any more.
            unsafe { os::discard(pages.as_ptr(), pages.len()) };
        }
        allocation.register().fetch_add(1, Ordering::Release);
    }
}

/// Some bytes of an allocation, which stays mapped meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    allocation: Arc<Allocation>,
    start: usize,
    len: usize,
}

impl Stretch {
    /// The bytes.
    pub(crate) fn view(&self) -> View<'_> {
        self.allocation.region.view().part(self.start..self.start + self.len)
    }

    /// The allocation's number and the offset in it.
    pub(crate) fn place(&self) -> [u64; 2] {
        [self.allocation.number, self.start as u64]
    }

    /// Makes its pages this process' own, with what they hold: who else maps the region cannot reach them any
    /// more.
    ///
    /// # Errors
    /// [`Kind::System`](crate::Kind::System) where there is no memory for them.
    pub(crate) fn detach(&self) -> Result<()> {
        self.allocation.detached.store(true, Ordering::Relaxed);
        let pages = Allocation::pages(self.start..self.start + self.len);
        let pages = self.allocation.region.view().part(pages);
        // `Allocations::lend` saw that nobody uses these pages but the call whose loan this is; that has ended.
        // SAFETY: so these are whole pages of a mapping, which no other thread of this process writes.
        unsafe { os::detach(pages.as_ptr(), pages.len()) }
            .map_err(|cause| Error::system("cannot take back what was lent (mremap)", cause))
    }
}

/// All allocations of one rank's job.
#[derive(Debug, Default)]
pub struct Allocations {
    all: Mutex<Vec<Arc<Allocation>>>,
    /// The lowest and the highest address of this rank's parts: most memory lies beyond, and is told by
    /// them without a lock.
    hull: [AtomicUsize; 2],
}

impl Allocations {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Allocation>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, and forgets those that no member uses any more.
    pub(crate) fn add(&self, allocation: Arc<Allocation>) {
        let mut all = self.lock();
        all.retain(|known| !known.is_deserted());
        all.push(allocation);
        // Of those that are left; a view of one of them is asked for by whoever has its buffer, and so after this.
        let starts = all.iter().map(|known| known.part().as_ptr().addr());
        let ends = all.iter().map(|known| known.part().as_ptr().addr() + known.len);
        let (lowest, highest) = (starts.min().unwrap_or(0), ends.max().unwrap_or(0));
        self.hull[0].store(lowest, Ordering::Relaxed);
        self.hull[1].store(highest, Ordering::Relaxed);
    }

    /// What lies at `view`, to be lent to `peer`: if it is this rank's part of an allocation that the peer maps,
    /// too, and if it can be taken back. That goes by whole pages, of which all that is used must be of `whole`,
    /// the memory of the lender's call.
    pub(crate) fn lend(&self, view: View<'_>, whole: View<'_>, peer: u32) -> Option<Stretch> {
        let [lowest, highest] = self.hull.each_ref().map(|bound| bound.load(Ordering::Relaxed));
        if !(lowest..highest).contains(&view.as_ptr().addr()) {
            return None;
        }
        let all = self.lock();
        let found = |one: &&Arc<Allocation>| one.has(peer) && !one.detached.load(Ordering::Relaxed);
        all.iter().filter(found).find_map(|allocation| {
            let (start, from) = (allocation.offset(view)?, allocation.offset(whole)?);
            let (pages, end) = (Allocation::pages(start..start + view.len()), from + whole.len());
            let alone =
                from <= pages.start && (pages.end <= end || end == allocation.range(allocation.mine).end);
            alone.then(|| Stretch { allocation: allocation.clone(), start, len: view.len() })
        })
    }

    /// `len` bytes of the `peer`'s part that are lent to this rank; nothing where no peer could mean that.
    pub(crate) fn borrow(&self, [number, start]: [u64; 2], len: usize, peer: u32) -> Option<Stretch> {
        let all = self.lock();
        let allocation = all.iter().find(|allocation| allocation.number == number)?;
        let member = allocation.members.iter().position(|&member| member == peer)?;
        let (part, start) = (allocation.range(member), usize::try_from(start).ok()?);
        let inside = part.contains(&start) && len <= part.end - start;
        inside.then(|| Stretch { allocation: allocation.clone(), start, len })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const LEN: usize = 10_000;

    /// An allocation of ranks 3 and 5, as both see it.
    fn pair() -> [(Allocations, Part); 2] {
        let size = Allocation::size(LEN, 2).unwrap();
        let (mine, fd) = Region::create("kolo-test", size).unwrap();
        let theirs = Region::open(fd.as_fd(), size).unwrap();
        [(mine, 0), (theirs, 1)].map(|(region, place)| {
            let (all, part) = (Allocations::default(), Allocation::map(7, region, vec![3, 5], place, LEN));
            all.add(part.allocation());
            (all, part)
        })
    }

    fn bytes(view: View<'_>) -> &mut [u8] {
        // SAFETY: mapped for as long, and these tests touch it from one thread.
        unsafe { std::slice::from_raw_parts_mut(view.as_ptr(), view.len()) }
    }

    #[test]
    fn what_one_lends_the_other_finds() {
        let [(mine, own), (theirs, other)] = pair();
        let part = own.view();
        bytes(part).fill(1);
        let lent = mine.lend(part.part(100..5000), part, 5).expect("the whole part is the call's");
        let borrowed = theirs.borrow(lent.place(), 4900, 3).expect("it is rank 3's");
        assert_eq!(bytes(borrowed.view()), [1; 4900]);
        bytes(borrowed.view()).fill(2);
        assert!(bytes(part)[..100].iter().all(|&byte| byte == 1));
        assert!(bytes(part)[100..5000].iter().all(|&byte| byte == 2));
        assert!(bytes(other.view()).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn only_this_ranks_part_is_lent_and_only_to_members() {
        let [(mine, own), (_, other)] = pair();
        let part = own.view();
        assert!(mine.lend(part, part, 4).is_none(), "rank 4 does not map it");
        let theirs = own.0.region.view().part(own.0.range(1));
        assert!(mine.lend(theirs, theirs, 5).is_none(), "it is the other's");
        assert!(mine.lend(other.view(), other.view(), 5).is_none(), "it is another mapping");
        let ordinary = [0; 64];
        assert!(mine.lend(View::read(&ordinary), View::read(&ordinary), 5).is_none());
        let beyond = own.0.region.view().part(os::page()..os::page() + LEN + 1);
        assert!(mine.lend(beyond, beyond, 5).is_none(), "it goes on behind the part");
    }

    #[test]
    fn pages_that_others_may_be_using_are_not_lent() {
        let [(mine, own), _] = pair();
        let (part, page) = (own.view(), os::page());
        let lends = |view: Range<usize>, whole: Range<usize>| {
            mine.lend(part.part(view), part.part(whole), 5).is_some()
        };
        assert!(lends(0..page, 0..page));
        assert!(!lends(0..100, 0..100), "the rest of the page is not the call's");
        assert!(!lends(page..page + 100, page + 8..LEN));
        assert!(!lends(100..200, 50..LEN));
        assert!(lends(page + 8..page + 100, 100..LEN));
        assert!(lends(LEN - 8..LEN, page..LEN), "nobody uses what is behind the part");
    }

    #[test]
    fn places_that_no_peer_could_mean_are_refused() {
        let [(mine, own), _] = pair();
        let theirs = own.0.range(1);
        let found =
            |number: u64, start: usize, len, peer| mine.borrow([number, start as u64], len, peer).is_some();
        assert!(found(7, theirs.start, LEN, 5));
        assert!(!found(8, theirs.start, LEN, 5), "no such allocation");
        assert!(!found(7, theirs.start, LEN, 4), "not a member");
        assert!(!found(7, own.0.range(0).start, 1, 5), "this rank's own part");
        assert!(!found(7, theirs.start - 1, 2, 5) && !found(7, 0, 1, 5));
        assert!(!found(7, theirs.start + 1, LEN, 5) && !found(7, theirs.end, 0, 5));
        assert!(!found(7, usize::MAX, 1, 5) && !found(7, theirs.start, usize::MAX, 5));
    }

    #[test]
    fn what_is_detached_nobody_else_reaches() {
        let [(mine, own), (theirs, _other)] = pair();
        let part = own.view();
        bytes(part).fill(1);
        let lent = mine.lend(part.part(5000..6000), part, 5).unwrap();
        let borrowed = theirs.borrow(lent.place(), 1000, 3).unwrap();
        lent.detach().unwrap();
        assert!(bytes(part).iter().all(|&byte| byte == 1), "it holds what it held");
        bytes(borrowed.view()).fill(9);
        assert!(bytes(part).iter().all(|&byte| byte == 1), "a late writer");
        bytes(part).fill(3);
        assert_eq!(bytes(borrowed.view()), [9; 1000]);
        assert!(mine.lend(part, part, 5).is_none(), "it is not lent any more");
    }

    #[test]
    fn a_part_that_is_left_takes_no_memory_and_the_last_one_takes_the_mapping_along() {
        let [(mine, own), (theirs, other)] = pair();
        bytes(own.view()).fill(1);
        let borrowed = theirs.borrow([7, os::page() as u64], LEN, 3).unwrap();
        drop(own);
        assert!(bytes(borrowed.view()).iter().all(|&byte| byte == 0), "the pages are gone");
        let count = |all: &Allocations| all.lock().len();
        let another = || {
            let (region, _) = Region::create("kolo-test", Allocation::size(1, 1).unwrap()).unwrap();
            Allocation::map(8, region, vec![3], 0, 1)
        };
        let first = another();
        mine.add(first.allocation());
        assert_eq!(count(&mine), 2, "rank 5 may still lend from its part");
        drop(other);
        let second = another();
        mine.add(second.allocation());
        assert_eq!(count(&mine), 2, "the two of rank 3 alone");
    }
}
