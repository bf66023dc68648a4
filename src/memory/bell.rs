//! How a rank sleeps without missing a message.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, compiler_fence};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::doorbell::{Asleep, Doorbell};
use super::shared::{Shareable, Shared};
use crate::error::{Error, Result};
use crate::sys::os;
use crate::transport::Watch;

/// How long a rank sleeps at most where a wake-up may be lost, since somebody's kernel knows no membarrier.
const UNSURE: Duration = Duration::from_millis(1);

/// What a bell's owner and those who ring it share.
#[repr(C)]
struct Page {
    doorbell: Doorbell,
    /// Not 0 once somebody rings it who takes no part in the owner's barriers.
    outsider: AtomicU32,
}

// SAFETY: two atomic integers.
unsafe impl Shareable for Page {}

/// What one communicator's waiting thread sleeps on; its peers ring it through a [`Ringer`].
///
/// ```ignore
/// bell.announce(!watches.is_empty());
/// if nothing_came() { bell.sleep(&watches, timeout)? } else { bell.cancel() }
/// ```
///
/// Between `announce` and `sleep` the caller looks at all its links once more: what was published before
/// is seen there, what is published later rings. After either, the caller looks again; it may have been
/// woken for nothing.
pub struct Bell {
    page: Arc<Shared<Page>>,
    memory: OwnedFd,
    event: Arc<OwnedFd>,
    /// Whether the last announcement reached everybody.
    sure: AtomicBool,
}

impl Bell {
    /// A new one, that nobody rings yet.
    ///
    /// # Errors
    /// [`Kind::System`](crate::Kind) where the kernel gives no memfd or eventfd.
    pub fn new() -> Result<Arc<Self>> {
        let (page, memory) = Shared::create("kolo-bell")?;
        let event = os::eventfd().map_err(|cause| Error::system("cannot create an eventfd", cause))?;
        let page = Arc::new(page);
        join(&page);
        Ok(Arc::new(Self { page, memory, event: Arc::new(event), sure: AtomicBool::new(false) }))
    }

    /// A handle to ring it from this process.
    pub fn ringer(&self) -> Ringer {
        Ringer { page: self.page.clone(), event: self.event.clone() }
    }

    /// What another process of this host needs to ring it; see [`Ringer::from_descriptors`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.as_fd(), self.event.as_fd()]
    }

    /// Says that its owner is about to sleep, with or without descriptors to watch.
    pub fn announce(&self, watched: bool) {
        let how = if watched { Asleep::Poll } else { Asleep::Futex };
        self.page.doorbell.announce(how, || {
            let reached = os::barrier() && self.page.outsider.load(Ordering::Relaxed) == 0;
            self.sure.store(reached, Ordering::Relaxed);
        });
    }

    /// Sleeps, after [`announce`](Self::announce) with the same answer to "is anything watched", until it
    /// is rung, one of `watches` is ready, or `timeout` has passed; now and then for less.
    ///
    /// # Errors
    /// [`Kind::System`](crate::Kind) where the kernel refuses.
    pub fn sleep(&self, watches: &[Watch], timeout: Option<Duration>) -> Result<()> {
        let (futex, announced) = (watches.is_empty(), self.page.doorbell.announced());
        debug_assert!(
            announced.is_none_or(|how| (how == Asleep::Futex) == futex),
            "announced as {announced:?}"
        );
        let sure = self.sure.load(Ordering::Relaxed);
        let timeout = if sure { timeout } else { Some(timeout.unwrap_or(UNSURE).min(UNSURE)) };
        let outcome = if futex {
            os::wait(self.page.doorbell.word(), Asleep::Futex as u32, timeout)
        } else {
            self.poll(watches, timeout)
        };
        self.page.doorbell.rise();
        outcome.map_err(|cause| Error::system("cannot sleep", cause))
    }

    /// Takes an announcement back.
    pub fn cancel(&self) {
        self.page.doorbell.rise();
    }

    /// What another bell's sleep must watch to be woken by this one, too, once this one is announced.
    pub fn watch(&self) -> Watch {
        Watch { fd: self.event.as_raw_fd(), write: false, unsent: false, within: None }
    }

    /// Takes back an announcement that another bell slept for.
    pub fn hush(&self) {
        self.cancel();
        os::drain(self.event.as_fd());
    }

    fn poll(&self, watches: &[Watch], timeout: Option<Duration>) -> std::io::Result<()> {
        let within = watches.iter().filter_map(|watch| watch.within).chain(timeout).min();
        let mut fds = Vec::with_capacity(watches.len() + 1);
        fds.push(PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN));
        for watch in watches {
            let events = if watch.write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            // SAFETY: the link that gave the watch keeps its descriptor open, and the caller keeps the link.
            fds.push(PollFd::from_borrowed_fd(unsafe { BorrowedFd::borrow_raw(watch.fd) }, events));
        }
        os::poll(&mut fds, within)?;
        if !fds[0].revents().is_empty() {
            os::drain(self.event.as_fd());
        }
        Ok(())
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("doorbell", &self.page.doorbell).finish_non_exhaustive()
    }
}

/// Wakes the owner of a [`Bell`], from this process or another of this host.
#[derive(Clone)]
pub struct Ringer {
    page: Arc<Shared<Page>>,
    event: Arc<OwnedFd>,
}

impl Ringer {
    /// A handle to a bell of another process, from its [`Bell::descriptors`] in that order.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind) where the first is not a bell's page.
    pub fn from_descriptors(memory: OwnedFd, event: OwnedFd) -> Result<Self> {
        let page = Arc::new(Shared::open(memory.as_fd())?);
        join(&page);
        Ok(Self { page, event: Arc::new(event) })
    }

    /// Wakes the owner if it sleeps, or is about to; to be called after whatever it should see is
    /// published. Costs one relaxed load while it is awake: no fence, no system call.
    #[inline]
    pub fn ring(&self) {
        match self.page.doorbell.ring(|| compiler_fence(Ordering::SeqCst)) {
            None => {}
            Some(Asleep::Futex) => os::wake(self.page.doorbell.word()),
            Some(Asleep::Poll) => os::signal(self.event.as_fd()),
        }
    }
}

impl std::fmt::Debug for Ringer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ringer").field("doorbell", &self.page.doorbell).finish_non_exhaustive()
    }
}

/// Has this process take part in the barriers of the page's owner, or tells the owner that it cannot.
fn join(page: &Page) {
    if os::join_barriers().is_err() {
        page.outsider.store(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(60));

    fn watch(fd: std::os::fd::RawFd, write: bool) -> Watch {
        Watch { fd, write, unsent: write, within: None }
    }

    /// Counts to `rounds` together with another thread, each asleep until the other has counted.
    fn take_turns(rounds: u64, watches: &[&[Watch]; 2]) {
        let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
        let count = AtomicU64::new(0);
        thread::scope(|scope| {
            for me in 0..2 {
                let (bells, count, watches) = (&bells, &count, watches[me]);
                scope.spawn(move || {
                    let [memory, event] =
                        bells[1 - me].descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
                    let other = Ringer::from_descriptors(memory, event).unwrap();
                    for turn in (0..rounds).filter(|turn| turn % 2 == me as u64) {
                        while count.load(Ordering::Acquire) != turn {
                            bells[me].announce(!watches.is_empty());
                            if count.load(Ordering::Acquire) == turn {
                                bells[me].cancel();
                            } else {
                                bells[me].sleep(watches, LONG).unwrap();
                            }
                        }
                        count.store(turn + 1, Ordering::Release);
                        other.ring();
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), rounds);
    }

    #[test]
    fn no_wake_is_lost_on_a_futex() {
        take_turns(20_000, &[&[], &[]]);
    }

    #[test]
    fn no_wake_is_lost_in_a_poll() {
        let (quiet, _end) = UnixStream::pair().unwrap();
        let watch = [watch(quiet.as_raw_fd(), false)];
        take_turns(20_000, &[&[], &watch]);
        take_turns(20_000, &[&watch, &watch]);
    }

    #[test]
    fn a_ready_descriptor_ends_the_sleep() {
        let bell = Bell::new().unwrap();
        let (socket, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"x").unwrap();
        bell.announce(true);
        bell.sleep(&[watch(socket.as_raw_fd(), false)], LONG).unwrap();
        bell.announce(true);
        bell.sleep(&[watch(end.as_raw_fd(), true)], LONG).unwrap();
    }

    #[test]
    fn a_ring_between_announcement_and_sleep_is_kept() {
        let bell = Bell::new().unwrap();
        bell.announce(false);
        bell.ringer().ring();
        bell.sleep(&[], LONG).unwrap();
    }

    #[test]
    fn the_sleep_ends_with_its_timeout() {
        let bell = Bell::new().unwrap();
        bell.announce(false);
        bell.sleep(&[], Some(Duration::from_millis(1))).unwrap();
        assert_eq!(bell.ringer().page.doorbell.ring(|| {}), None, "still announced");
    }
}
