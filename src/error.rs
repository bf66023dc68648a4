//! What went wrong, who saw it, with whom, in which call, and what to try.

use std::any::Any;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// The outcome of every call that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is: what a program may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The caller broke a rule that this rank alone can see. The communicator stays usable.
    Usage,
    /// Two ranks called differently: another collective, count, element type, operator or root.
    Mismatch,
    /// The deadline passed while this rank waited for others.
    Deadline,
    /// A rank died, or left the communicator after an error of its own.
    PeerLost,
    /// Somebody aborted the communicator.
    Aborted,
    /// A connection was refused: a wrong secret, a wrong version, a stranger.
    Refused,
    /// The operating system said no.
    System,
}

/// A failure with its circumstances. Displays as one line.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    rank: Option<usize>,
    peer: Option<usize>,
    call: Option<String>,
    calls: Option<[[u64; 4]; 2]>,
}

impl Error {
    /// A failure of the given kind; `message` says what is wrong and what to try.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            rank: None,
            peer: None,
            call: None,
            calls: None,
        }))
    }

    /// A rule of the call was broken by this rank's own caller.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The operating system refused `action`. Where the cause is its error number, what can be done is said, too.
    pub fn system(action: impl fmt::Display, cause: impl fmt::Display + 'static) -> Self {
        let advice = errno(&cause).map_or("", advice);
        Self::new(Kind::System, format!("{action}: {cause}{advice}"))
    }

    /// The rank that reports.
    #[must_use]
    pub fn at(mut self, rank: usize) -> Self {
        self.0.rank.get_or_insert(rank);
        self
    }

    /// The rank that it failed with.
    #[must_use]
    pub fn with(mut self, peer: usize) -> Self {
        self.0.peer.get_or_insert(peer);
        self
    }

    /// The rank that is to blame, whoever it failed with.
    #[must_use]
    pub fn blaming(mut self, rank: usize) -> Self {
        if let Some(peer) = self.0.peer.replace(rank).filter(|peer| *peer != rank) {
            self.0.message = format!("through rank {peer}: {}", self.0.message);
        }
        self
    }

    /// More of what is wrong, to be read after what was said already.
    #[must_use]
    pub fn because(mut self, more: &str) -> Self {
        self.0.message.push_str(more);
        self
    }

    /// The call in which it failed, such as `all_reduce #17`.
    #[must_use]
    pub fn during(mut self, call: impl fmt::Display) -> Self {
        self.0.call.get_or_insert_with(|| call.to_string());
        self
    }

    /// Two calls that should have been alike, as they travel: the reporting rank's own, and that of the rank that it
    /// failed with.
    pub(crate) fn between(mut self, calls: [[u64; 4]; 2]) -> Self {
        self.0.calls = Some(calls);
        self
    }

    /// See [`Error::between`].
    pub(crate) fn calls(&self) -> Option<[[u64; 4]; 2]> {
        self.0.calls
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The rank that it failed with, where one is known.
    pub fn peer(&self) -> Option<usize> {
        self.0.peer
    }
}

fn errno(cause: &dyn Any) -> Option<Errno> {
    let errno = cause.downcast_ref::<Errno>().copied();
    errno.or_else(|| Errno::from_io_error(cause.downcast_ref::<io::Error>()?))
}

/// What to do about a refusal whose reason lies outside of kolo.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE | Errno::TOOMANYREFS => "; raise how many a process may open (ulimit -n)",
        Errno::NFILE => "; raise how many a host may open (sysctl fs.file-max)",
        Errno::PERM | Errno::NOSYS => {
            "; where a sandbox or container filters system calls (seccomp), let it allow this one"
        }
        _ => "",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { rank, peer, call, message, .. } = &*self.0;
        if let Some(rank) = rank {
            write!(f, "rank {rank}: ")?;
        }
        if let Some(call) = call {
            write!(f, "{call}: ")?;
        }
        if let Some(peer) = peer {
            write!(f, "with rank {peer}: ")?;
        }
        f.write_str(message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_comes_with_advice_where_there_is_some() {
        let said = |cause: io::Error| Error::system("opening", cause).to_string();
        assert!(
            said(Errno::MFILE.into())
                .ends_with("(os error 24); raise how many a process may open (ulimit -n)")
        );
        assert!(said(Errno::NOSYS.into()).contains("(seccomp)"));
        assert_eq!(Error::system("opening", Errno::PERM).to_string(), said(Errno::PERM.into()));
        assert_eq!(Error::system("opening", "no luck").to_string(), "opening: no luck");
        assert_eq!(said(io::Error::other("no luck")), "opening: no luck");
    }

    #[test]
    fn one_line_says_who_where_and_with_whom() {
        let error = Error::new(Kind::Deadline, "nothing came for 3 s").at(2).with(5).during("broadcast #4");
        assert_eq!(error.to_string(), "rank 2: broadcast #4: with rank 5: nothing came for 3 s");
        assert_eq!((error.kind(), error.peer()), (Kind::Deadline, Some(5)));
        let blamed = error.because("; rank 7 has ended").blaming(7);
        let told = "with rank 7: through rank 5: nothing came for 3 s; rank 7 has ended";
        assert!(blamed.to_string().ends_with(told) && blamed.peer() == Some(7), "{blamed}");
    }
}
