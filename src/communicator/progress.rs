//! The thread that walks works while their callers do something else.
//!
//! A communicator's [`Core`] is either with its owner, who makes blocking calls, or lies in its
//! [`Queue`] with the works that were started, for this thread. It changes hands under the queue's lock,
//! so that a blocking call with no work outstanding takes no lock at all.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::core::{Begun, Core};
use super::work::Task;
use crate::engine::{Next, Progress as Step, Wait, Walk, aborted};
use crate::error::{Error, Result};
use crate::memory::{Bell, Ringer};
use crate::transport::Watch;

/// The works of one communicator, and its core while there are any.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    idle: Condvar,
}

#[derive(Default)]
struct Waiting {
    core: Option<Box<Core>>,
    tasks: VecDeque<Task>,
    /// Whether the progress thread knows of this queue.
    active: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Adds a task, and the core where its owner still has it.
    pub(super) fn push(self: &Arc<Self>, core: &mut Option<Box<Core>>, task: Task, thread: &Progress) {
        let mut state = self.lock();
        if let Some(core) = core.take() {
            state.core = Some(core);
        }
        state.tasks.push_back(task);
        if !std::mem::replace(&mut state.active, true) {
            thread.submit(self.clone());
        }
    }

    /// Waits until every work is done and takes the core back.
    pub(super) fn recall(&self) -> Box<Core> {
        let mut state = self.lock();
        while state.active {
            state = self.idle.wait(state).unwrap_or_else(|poison| poison.into_inner());
        }
        state.core.take().expect("an idle queue holds its core")
    }
}

/// The thread's face to the communicators of its process.
pub(super) struct Progress {
    inbox: Arc<Inbox>,
    ringer: Ringer,
}

#[derive(Default)]
struct Inbox {
    state: Mutex<Mail>,
}

#[derive(Default)]
struct Mail {
    queues: Vec<Arc<Queue>>,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Progress {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self> {
        let (inbox, bell) = (Arc::<Inbox>::default(), Bell::new()?);
        let ringer = bell.ringer();
        let theirs = inbox.clone();
        std::thread::Builder::new()
            .name("kolo-progress".into())
            .spawn(move || Runner { inbox: theirs, bell, running: Vec::new() }.run())
            .map_err(|cause| Error::system("starting the progress thread", cause))?;
        Ok(Self { inbox, ringer })
    }

    fn submit(&self, queue: Arc<Queue>) {
        self.inbox.lock().queues.push(queue);
        self.ringer.ring();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Not joined: the last owner may be the thread itself.
        self.inbox.lock().closed = true;
        self.ringer.ring();
    }
}

/// A queue's first task, on its way.
struct Running {
    queue: Arc<Queue>,
    core: Box<Core>,
    task: Task,
    begun: Begun,
    walk: Walk,
    wait: Wait,
}

struct Runner {
    inbox: Arc<Inbox>,
    bell: Arc<Bell>,
    running: Vec<Running>,
}

/// How one look at all running works ended.
enum Turn {
    /// Something moved, or it is too early to sleep.
    Again,
    /// Nothing will move for a while.
    Sleep(Duration),
}

impl Runner {
    fn run(mut self) {
        loop {
            if !self.collect() && self.running.is_empty() {
                return;
            }
            match self.turn() {
                Turn::Again => {}
                Turn::Sleep(nap) => self.sleep(nap),
            }
        }
    }

    /// Takes in new queues; false when there will be no more.
    fn collect(&mut self) -> bool {
        let mut mail = self.inbox.lock();
        let (queues, open) = (std::mem::take(&mut mail.queues), !mail.closed);
        drop(mail);
        for queue in queues {
            let core = queue.lock().core.take();
            let core = core.expect("a queue comes with its core");
            self.running.extend(next(queue, core));
        }
        open
    }

    fn turn(&mut self) -> Turn {
        let (mut moved, mut nap) = (false, Some(Duration::from_secs(3600)));
        let mut at = 0;
        while at < self.running.len() {
            match self.running[at].advance() {
                Ok(Looked::Moved) => moved = true,
                Ok(Looked::Patient) => nap = None,
                Ok(Looked::Sleepy(most)) => nap = nap.map(|nap| nap.min(most)),
                Ok(Looked::Done) => {
                    moved = true;
                    self.finish(at, Ok(()));
                    continue;
                }
                Err(error) => {
                    moved = true;
                    self.finish(at, Err(error));
                    continue;
                }
            }
            at += 1;
        }
        match nap {
            Some(nap) if !moved => Turn::Sleep(nap),
            _ => Turn::Again,
        }
    }

    fn finish(&mut self, at: usize, result: Result<()>) {
        let Running { queue, mut core, task, begun, .. } = self.running.swap_remove(at);
        core.bell().cancel();
        let result = result.map_err(|error| core.fail(error, &begun.signature));
        task.held.finish(result);
        self.running.extend(next(queue, core));
    }

    fn sleep(&mut self, nap: Duration) {
        let mut watches: Vec<Watch> = Vec::new();
        for running in &mut self.running {
            running.core.bell().announce(true);
            watches.push(running.core.bell().watch());
            watches.extend(running.watches());
        }
        self.bell.announce(true);
        let news = !self.inbox.lock().queues.is_empty() || self.inbox.lock().closed;
        if news || !matches!(self.turn(), Turn::Sleep(_)) {
            self.bell.cancel();
        } else if let Err(error) = self.bell.sleep(&watches, Some(nap)) {
            // Nothing to wait on: better to look again and again than to lose a work.
            debug_assert!(false, "{error}");
            std::thread::yield_now();
        }
        let mut at = 0;
        while at < self.running.len() {
            self.running[at].core.bell().hush();
            match self.running[at].check_alive() {
                Ok(()) => at += 1,
                Err(error) => self.finish(at, Err(error)),
            }
        }
    }
}

/// Begins a queue's next task; lays the core back where there is none.
fn next(queue: Arc<Queue>, mut core: Box<Core>) -> Option<Running> {
    loop {
        let mut state = queue.lock();
        let Some(mut task) = state.tasks.pop_front() else {
            state.core = Some(core);
            state.active = false;
            drop(state);
            queue.idle.notify_all();
            return None;
        };
        drop(state);
        let (input, _) = task.held.views();
        match core.begin(&task.ask, input) {
            Ok(begun) => {
                let (walk, wait) = core.set_out(&begun);
                return Some(Running { queue, core, task, begun, walk, wait });
            }
            Err(error) => task.held.finish(Err(error)),
        }
    }
}

/// How one look at one work ended.
enum Looked {
    Moved,
    Done,
    /// Blocked, and too early to sleep.
    Patient,
    /// Blocked for long enough to sleep.
    Sleepy(Duration),
}

impl Running {
    fn advance(&mut self) -> Result<Looked> {
        let Self { core, task, begun, walk, wait, .. } = self;
        let abort = core.abort().clone();
        let allowed = core.settings().deadline;
        let Task { ask, held } = task;
        core.ride(ask, begun, held.views(), |ride| {
            Ok(match ride.advance(walk)? {
                Step::Done => Looked::Done,
                Step::Moved => {
                    wait.reset();
                    Looked::Moved
                }
                Step::Blocked => match wait.next(&abort) {
                    Next::Again => Looked::Patient,
                    Next::Park(nap) => Looked::Sleepy(nap),
                    Next::Late => return Err(ride.late(walk, allowed)),
                    Next::Aborted => return Err(aborted()),
                },
            })
        })
    }

    fn watches(&mut self) -> Vec<Watch> {
        let Self { core, task: Task { ask, held }, begun, walk, .. } = self;
        core.ride(ask, begun, held.views(), |ride| ride.watches(walk))
    }

    fn check_alive(&mut self) -> Result<()> {
        let Self { core, task: Task { ask, held }, begun, walk, .. } = self;
        core.ride(ask, begun, held.views(), |ride| ride.check_alive(walk))
    }
}
