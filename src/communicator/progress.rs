//! The thread that walks works while their callers do something else.
//!
//! A communicator's [`Core`] is either with its owner, who makes blocking calls, or lies in its
//! [`Queue`] with the works that were started, for this thread. It changes hands under the queue's lock,
//! so that a blocking call with no work outstanding takes no lock at all.
//!
//! Opening links waits for other ranks, who may be about to open those of another communicator first. So a
//! work whose route is not open yet begins on a thread of its own, and comes here when it is.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::core::{Core, panicked};
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
    opened: Vec<Opened>,
    closed: bool,
}

/// A queue's first task, whose links are open, or why not.
struct Opened {
    queue: Arc<Queue>,
    core: Box<Core>,
    task: Task,
    begun: Result<()>,
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
            .spawn(move || {
                Runner { inbox: theirs, bell, running: Vec::new(), opening: 0, closed: false }.run()
            })
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
    walk: Walk,
    wait: Wait,
}

struct Runner {
    inbox: Arc<Inbox>,
    bell: Arc<Bell>,
    running: Vec<Running>,
    /// How many tasks are having their links opened.
    opening: usize,
    /// Whether there will be no more queues.
    closed: bool,
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
            self.collect();
            if self.closed && self.running.is_empty() && self.opening == 0 {
                return;
            }
            match self.turn() {
                Turn::Again => {}
                Turn::Sleep(nap) => self.sleep(nap),
            }
        }
    }

    /// Takes in what has come.
    fn collect(&mut self) {
        let mut mail = self.inbox.lock();
        let (queues, opened) = (std::mem::take(&mut mail.queues), std::mem::take(&mut mail.opened));
        self.closed = mail.closed;
        drop(mail);
        for queue in queues {
            let core = queue.lock().core.take();
            self.next(queue, core.expect("a queue comes with its core"));
        }
        for Opened { queue, core, task, begun } in opened {
            self.opening -= 1;
            match begun {
                Ok(()) => self.running.push(Running::new(queue, core, task)),
                Err(error) => {
                    task.held.finish(Err(error));
                    self.next(queue, core);
                }
            }
        }
    }

    /// Begins a queue's next task; lays the core back where there is none.
    fn next(&mut self, queue: Arc<Queue>, mut core: Box<Core>) {
        loop {
            let mut state = queue.lock();
            let Some(mut task) = state.tasks.pop_front() else {
                state.core = Some(core);
                state.active = false;
                drop(state);
                return queue.idle.notify_all();
            };
            drop(state);
            if !core.knows(&task.ask) {
                self.opening += 1;
                return open_apart(
                    Opener { inbox: self.inbox.clone(), ringer: self.bell.ringer() },
                    queue,
                    core,
                    task,
                );
            }
            let (input, _) = task.held.views();
            match core.begin(&task.ask, input) {
                Ok(()) => return self.running.push(Running::new(queue, core, task)),
                Err(error) => task.held.finish(Err(error)),
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let (mut moved, mut nap) = (false, Some(Duration::from_secs(3600)));
        let mut at = 0;
        while at < self.running.len() {
            // A panic must not end the thread that all communicators' works wait for.
            let running = &mut self.running[at];
            let looked = catch_unwind(AssertUnwindSafe(|| running.advance()));
            match looked.unwrap_or_else(|_| Err(panicked())) {
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
        let Running { queue, mut core, task, .. } = self.running.swap_remove(at);
        core.bell().cancel();
        let end = |()| {
            core.stamp();
            core.end();
        };
        let result = result.map(end).map_err(|error| core.fail(error));
        task.held.finish(result);
        self.next(queue, core);
    }

    fn sleep(&mut self, nap: Duration) {
        let mut watches: Vec<Watch> = Vec::new();
        for running in &mut self.running {
            running.core.bell().announce(true);
            watches.push(running.core.bell().watch());
            watches.extend(running.watches());
        }
        self.bell.announce(!watches.is_empty());
        let mail = self.inbox.lock();
        let news = !mail.queues.is_empty() || !mail.opened.is_empty() || mail.closed != self.closed;
        drop(mail);
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
            match self.running[at].check() {
                Ok(()) => at += 1,
                Err(error) => self.finish(at, Err(error)),
            }
        }
    }
}

/// Where a task goes whose links are open.
struct Opener {
    inbox: Arc<Inbox>,
    ringer: Ringer,
}

/// Begins a task on a thread of its own; on this one where there can be none.
fn open_apart(opener: Opener, queue: Arc<Queue>, mut core: Box<Core>, mut task: Task) {
    let open = move || {
        let (input, _) = task.held.views();
        let begun = core.begin(&task.ask, input);
        opener.inbox.lock().opened.push(Opened { queue, core, task, begun });
        opener.ringer.ring();
    };
    // A closure that could not be given to a thread is lost, so it is fetched from where both can reach it.
    let shared = Arc::new(Mutex::new(Some(open)));
    let theirs = shared.clone();
    let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(|poison| poison.into_inner()).take();
    let spawned = std::thread::Builder::new().name("kolo-open".into()).spawn(move || {
        if let Some(open) = take(&theirs) {
            open();
        }
    });
    if spawned.is_err()
        && let Some(open) = take(&shared)
    {
        open();
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
    fn new(queue: Arc<Queue>, core: Box<Core>, task: Task) -> Self {
        let (walk, wait) = core.set_out();
        Self { queue, core, task, walk, wait }
    }

    fn advance(&mut self) -> Result<Looked> {
        let Self { core, task, walk, wait, .. } = self;
        let allowed = core.settings().deadline;
        let Task { ask, held } = task;
        core.ride(ask, held.views(), |ride| {
            Ok(match ride.advance(walk)? {
                Step::Done => Looked::Done,
                Step::Moved => {
                    wait.reset();
                    Looked::Moved
                }
                Step::Blocked => match ride.wait(walk, wait) {
                    Next::Again => Looked::Patient,
                    Next::Park(nap) => Looked::Sleepy(nap),
                    Next::Late => return Err(ride.late(walk, wait, allowed)),
                    Next::Aborted => return Err(aborted()),
                },
            })
        })
    }

    fn watches(&mut self) -> Vec<Watch> {
        let Self { core, task: Task { ask, held }, walk, wait, .. } = self;
        core.ride(ask, held.views(), |ride| ride.watches(walk, wait))
    }

    fn check(&mut self) -> Result<()> {
        let Self { core, task: Task { ask, held }, walk, wait, .. } = self;
        core.ride(ask, held.views(), |ride| ride.check(walk, wait))
    }
}
