//! Meeting through PMIx, the key-value store of Open MPI's mpirun, and of srun where it is told so.
//!
//! The launcher has a server on each host, to which this rank talks through a library that is loaded for it:
//!
//! | rank                    | servers                                                      |
//! | ----------------------- | ------------------------------------------------------------ |
//! | init                    | who this rank is                                             |
//! | put, commit             | this host's server keeps the value                           |
//! | fence, collecting       | wait for all ranks; exchange all values between the hosts    |
//! | get, for each rank      | from this host's server                                      |
//! | finalize                |                                                              |
//!
//! Keys are numbered, so that none is put twice. But a process may join its job again, and a store may then give what
//! was put under a key the first time (that of Open MPI 5 does). So all ranks first exchange random numbers, then what
//! each makes of them all: where any got an old one, these differ, and all go on to keys that are not used yet. (That of
//! Open MPI 4.1 was seen to lose what was put by a process that had come back: then the deadline says whose it was.)
//!
//! Calls of that library may wait for ever. So a thread makes them, and the rank waits for that thread, as long as its
//! deadline allows. (Castain, Hursey, Bouteiller, Solt: "PMIx: Process Management for Exascale Environments", Parallel
//! Computing 79, 2018.)

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::Bootstrap;
use super::dial::within;
use super::secret::{digest, random};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::sys;

/// How often the ranks of a job may meet.
const MOST_TIMES: usize = 1000;
/// How long to wait before a server is asked again that had nothing.
const AGAIN: Duration = Duration::from_millis(10);
/// How long to wait for the goodbye, when all is done.
const GOODBYE: Duration = Duration::from_secs(5);

/// A rank's end of the store.
pub(super) struct Pmix {
    rank: usize,
    size: usize,
    deadline: Deadline,
    /// To the thread: what this rank says in the next all-gather. Nothing once it got stuck.
    orders: Option<Sender<Vec<u8>>>,
    reports: Receiver<Report>,
}

/// What the thread tells.
enum Report {
    /// It has begun this.
    Begun(Step),
    /// It is done: what all ranks said, or nothing yet.
    Done(Result<Vec<Vec<u8>>>),
}

/// What may take long.
#[derive(Clone, Copy)]
enum Step {
    Init,
    Fence,
    Get(usize),
}

impl Pmix {
    /// Finds the launcher's server.
    pub(super) fn open(libraries: &[PathBuf], rank: usize, size: usize, deadline: Deadline) -> Result<Self> {
        let library = sys::pmix::Pmix::load(libraries).map_err(|why| missing(&why))?;
        let (orders, to_do) = channel();
        let (reporter, reports) = channel();
        let clerk = Clerk { rank, size, deadline, reporter };
        let started =
            std::thread::Builder::new().name("kolo-pmix".into()).spawn(move || clerk.run(library, &to_do));
        started.map_err(|cause| Error::system("starting a thread", cause))?;
        let mut pmix = Self { rank, size, deadline, orders: Some(orders), reports };
        pmix.wait()?;
        Ok(pmix)
    }

    /// Waits for what the thread was told to do.
    fn wait(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut step = Step::Init;
        loop {
            let report = match self.deadline.left() {
                Some(left) => self.reports.recv_timeout(left),
                None => self.reports.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match report {
                Ok(Report::Begun(begun)) => step = begun,
                Ok(Report::Done(outcome)) => return outcome,
                Err(RecvTimeoutError::Timeout) => {
                    self.orders = None;
                    return Err(late(step, &within(&self.deadline)));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(Kind::System, "the thread that talks to the launcher has ended"));
                }
            }
        }
    }
}

impl Bootstrap for Pmix {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        super::star::check(mine)?;
        // Where the thread has ended, waiting for it says so.
        let _ = self.orders.as_ref().map(|orders| orders.send(mine.to_vec()));
        self.wait()
    }
}

impl Drop for Pmix {
    /// Lets the thread say goodbye; one that is stuck is left alone.
    fn drop(&mut self) {
        if self.orders.take().is_some() {
            while self.reports.recv_timeout(GOODBYE).is_ok() {}
        }
    }
}

/// The thread's side.
struct Clerk {
    rank: usize,
    size: usize,
    deadline: Deadline,
    reporter: Sender<Report>,
}

impl Clerk {
    fn run(self, library: sys::pmix::Pmix, orders: &Receiver<Vec<u8>>) {
        let client = match self.open(library) {
            Ok(client) => client,
            Err(error) => return self.tell(Report::Done(Err(error))),
        };
        let fresh = self.find_fresh(&client);
        let Ok(time) = fresh else { return self.tell(Report::Done(fresh.map(|_| Vec::new()))) };
        self.tell(Report::Done(Ok(Vec::new())));
        for round in 2.. {
            let Ok(mine) = orders.recv() else { break };
            let outcome = self.exchange(&client, &key(time, round), mine);
            self.tell(Report::Done(outcome));
        }
        if time > 0 {
            // The launcher has heard a goodbye before; of another one PMIx 5 would free twice what it freed then.
            std::mem::forget(client);
        }
    }

    fn open(&self, library: sys::pmix::Pmix) -> Result<sys::pmix::Client> {
        self.tell(Report::Begun(Step::Init));
        let version = library.version();
        let client = library.open().map_err(|why| {
            let text = format!("the launcher's PMIx server was not found: {why} ({version})");
            Error::new(Kind::System, text)
        })?;
        if client.rank() as usize != self.rank {
            let (rank, theirs) = (self.rank, client.rank());
            let text = format!("the launcher's environment says rank {rank}, its PMIx server rank {theirs}");
            return Err(Error::new(Kind::Refused, text));
        }
        Ok(client)
    }

    /// For the how-manieth time the ranks meet here, as far as the store's keys tell.
    fn find_fresh(&self, client: &sys::pmix::Client) -> Result<usize> {
        for time in 0..MOST_TIMES {
            let drawn = self.exchange(client, &key(time, 0), random::<16>()?.to_vec())?;
            let mine = digest(&drawn.concat()).to_vec();
            let all = self.exchange(client, &key(time, 1), mine.clone())?;
            if all.iter().all(|theirs| *theirs == mine) {
                return Ok(time);
            }
        }
        let text =
            format!("the launcher's PMIx server gives old values, or the ranks met here {MOST_TIMES} times");
        Err(Error::new(Kind::Refused, text))
    }

    fn exchange(&self, client: &sys::pmix::Client, key: &CStr, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        client.put(key, &mine).map_err(|why| refused("to keep a value", &why))?;
        client.commit().map_err(|why| refused("to take values", &why))?;
        self.tell(Report::Begun(Step::Fence));
        client.fence().map_err(|why| refused("a fence", &why))?;
        let mut all = Vec::with_capacity(self.size);
        for rank in 0..self.size {
            if rank == self.rank {
                all.push(mine.clone());
                continue;
            }
            self.tell(Report::Begun(Step::Get(rank)));
            all.push(self.get(client, rank, key)?);
        }
        Ok(all)
    }

    /// What a rank has said. A server may let ranks pass a fence before it has all that was said at it.
    fn get(&self, client: &sys::pmix::Client, rank: usize, key: &CStr) -> Result<Vec<u8>> {
        loop {
            let left = self.deadline.left().map_or(0, |left| left.as_secs() as u32 + 1);
            let found = client.get(rank as u32, key, left);
            match found.map_err(|why| refused(&format!("what rank {rank} has said"), &why))? {
                Some(said) => return Ok(said),
                None if self.deadline.passed() => return Err(late(Step::Get(rank), &within(&self.deadline))),
                None => std::thread::sleep(AGAIN),
            }
        }
    }

    fn tell(&self, report: Report) {
        // Where nobody listens any more, the rank has given up.
        let _ = self.reporter.send(report);
    }
}

fn key(time: usize, round: usize) -> CString {
    CString::new(format!("kolo-{time}-{round}")).expect("no zero in it")
}

fn late(step: Step, within: &str) -> Error {
    let text = match step {
        Step::Init => format!("the launcher's PMIx server did not answer{within}"),
        Step::Fence => format!("not all ranks came to the launcher's fence{within}: does each start kolo?"),
        Step::Get(rank) => {
            format!("the launcher's PMIx server did not give what rank {rank} has said{within}")
        }
    };
    Error::new(Kind::Deadline, text)
}

fn refused(what: &str, why: &str) -> Error {
    Error::new(Kind::System, format!("the launcher's PMIx server refused {what}: {why}"))
}

fn missing(why: &str) -> Error {
    let text = format!(
        "the ranks are on several hosts, and the launcher's PMIx, which tells where, cannot be asked: {why}: install \
         it (Debian package libpmix2), or give every rank KOLO_RENDEZVOUS=host:port (of rank 0's host) and \
         KOLO_SECRET_FILE"
    );
    Error::new(Kind::System, text)
}
