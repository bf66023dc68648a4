//! Sockets that never block for longer than a deadline allows.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::carrier::{Carrier, Connection};
use super::seal::{Sealed, Session};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::sys::socket;

/// How many connections may wait to be accepted; the kernel may allow fewer.
const BACKLOG: i32 = 4096;

/// A connection to a rank, or to somebody who says so.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(Connection),
}

/// Why bytes did not go through.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The other side hung up.
    Closed,
    /// The deadline passed.
    Late,
    /// The operating system failed.
    Os(io::Error),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            Errno::BADMSG => {
                Self::Os(io::Error::other("what came was changed on its way, or is not encrypted"))
            }
            errno => Self::Os(errno.into()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    /// Whether it leads over a network, loopback's included.
    pub(super) fn over_network(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// The same, sealed if there is a session; only one over a network has any.
    pub(super) fn sealed(self, session: Option<Session>) -> Self {
        match (self, session) {
            (Self::Tcp(Connection::Plain(stream)), Some(session)) => {
                Self::Tcp(Sealed::new(stream, session).into())
            }
            (stream, _) => stream,
        }
    }

    fn carrier(&self) -> &dyn Carrier {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(connection) => connection.carrier(),
        }
    }

    /// Reads what is there; `None` while nothing is.
    pub(super) fn try_read(&self, into: &mut [u8]) -> Result<Option<usize>, Trouble> {
        loop {
            return match self.carrier().read(&mut [IoSliceMut::new(into)]) {
                Ok(0) if !into.is_empty() => Err(Trouble::Closed),
                Ok(count) => Ok(Some(count)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(None),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    /// Writes what fits; 0 while nothing does.
    pub(super) fn try_write(&self, bytes: &[u8]) -> Result<usize, Trouble> {
        loop {
            return match self.carrier().write(&[IoSlice::new(bytes)]) {
                Ok(count) => Ok(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(0),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    /// Reads exactly so many bytes.
    pub(super) fn read(&self, mut into: &mut [u8], deadline: &Deadline) -> Result<(), Trouble> {
        while !into.is_empty() {
            match self.try_read(into)? {
                Some(count) => into = &mut into[count..],
                None => wait(&mut [PollFd::new(self, PollFlags::IN)], deadline.left())?,
            }
        }
        Ok(())
    }

    /// Writes all of it.
    pub(super) fn write(&self, mut bytes: &[u8], deadline: &Deadline) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                0 => wait(&mut [PollFd::new(self, PollFlags::OUT)], deadline.left())?,
                count => bytes = &bytes[count..],
            }
        }
        loop {
            match self.carrier().flush() {
                Err(Errno::AGAIN) => wait(&mut [PollFd::new(self, PollFlags::OUT)], deadline.left())?,
                flushed => return Ok(flushed?),
            }
        }
    }
}

/// Sleeps until one of `fds` stirs; late when none did in time.
pub(super) fn wait(fds: &mut [PollFd<'_>], left: Option<Duration>) -> Result<(), Trouble> {
    // Rounded up, so that a wait which ends has really reached its deadline.
    let left = left.map(|left| left.saturating_add(Duration::from_micros(1)));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, left.as_ref()) {
        Ok(0) => Err(Trouble::Late),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Trouble::Os(errno.into())),
    }
}

/// A place at which others may connect.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Listener {
    /// Listens at an abstract UNIX socket: a name that no file bears and that ends with its holder.
    pub(super) fn unix(name: &str) -> io::Result<Self> {
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let socket = unix_socket()?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Self::Unix(socket.into()))
    }

    /// Listens at a port; at any free one where it is 0.
    pub(super) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        listen(&listener, BACKLOG)?;
        Ok(Self::Tcp(listener))
    }

    /// A listener at the first of these interfaces and ports that is to be had, and where that is.
    pub(super) fn tcp_at_one(
        interfaces: &[IpAddr],
        ports: &RangeInclusive<u16>,
    ) -> Result<(Self, SocketAddr)> {
        let mut failure = None;
        for port in ports.clone() {
            for &interface in interfaces {
                let wanted = SocketAddr::new(interface, port);
                match Self::tcp(wanted) {
                    Ok(listener) => {
                        let at = listener.address().unwrap_or(wanted);
                        return Ok((listener, at));
                    }
                    Err(cause) => {
                        let taken = cause.kind() == io::ErrorKind::AddrInUse;
                        failure = Some(cause);
                        // The next one is for hosts on which this one's family is switched off.
                        if taken {
                            break;
                        }
                    }
                }
            }
        }
        let cause = failure.unwrap_or_else(|| io::ErrorKind::AddrInUse.into());
        let (first, last) = (ports.start(), ports.end());
        if *last == 0 {
            return Err(Error::system("opening a TCP port", cause));
        }
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let text = format!(
            "no free port in KOLO_PORT={ports} ({cause}): it takes one for each rank of this host, two while a job grows"
        );
        Err(Error::new(Kind::System, text))
    }

    /// Where a TCP listener listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// The next who knocks, if anybody does. Through a UNIX socket only processes of this user come in.
    pub(super) fn accept(&self) -> io::Result<Option<Stream>> {
        let socket = match accept_with(self, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        Ok(match self {
            Self::Unix(_) => same_user(&socket)?.then(|| Stream::Unix(socket.into())),
            Self::Tcp(_) => {
                let stream = TcpStream::from(socket);
                stream.set_nodelay(true)?;
                Some(Stream::Tcp(stream.into()))
            }
        })
    }
}

/// Whether this user's process is at the other end of a UNIX socket.
fn same_user(socket: &OwnedFd) -> io::Result<bool> {
    Ok(socket::peer_user(socket)? == rustix::process::geteuid().as_raw())
}

/// What became of an attempt to connect.
pub(super) enum Dialed {
    /// It worked.
    Open(Stream),
    /// Nobody listens there, now.
    Absent(io::Error),
    /// Somebody listens there, but too many knock at once.
    Busy,
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Fails where this process can have no other socket: whom it does not reach then may well be there.
pub(super) fn room_for_another() -> Result<()> {
    unix_socket().map(drop).map_err(|cause| Error::system("opening a socket", cause))
}

/// Connects to an abstract UNIX socket, whose holder must be this user.
pub(super) fn dial_unix(name: &str) -> Result<Dialed> {
    let failed = |cause: Errno| Error::system(format!("connecting to the UNIX socket @{name}"), cause);
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(failed)?;
    let socket = unix_socket().map_err(failed)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(Dialed::Busy),
        Err(Errno::CONNREFUSED) => return Ok(Dialed::Absent(Errno::CONNREFUSED.into())),
        Err(errno) => return Err(failed(errno)),
    }
    if !same_user(&socket).map_err(|cause| Error::system("asking who holds a UNIX socket", cause))? {
        let text = format!("another user holds the UNIX socket @{name}: start the job under another name");
        return Err(Error::new(Kind::Refused, text));
    }
    Ok(Dialed::Open(Stream::Unix(socket.into())))
}

/// Connects to a port within `allowed`.
pub(super) fn dial_tcp(address: SocketAddr, allowed: Duration) -> Result<Dialed> {
    if allowed.is_zero() {
        return Ok(Dialed::Absent(io::ErrorKind::TimedOut.into()));
    }
    let stream = match TcpStream::connect_timeout(&address, allowed) {
        Ok(stream) => stream,
        Err(cause) => return room_for_another().map(|()| Dialed::Absent(cause)),
    };
    let prepared = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
    prepared.map_err(|cause| Error::system(format!("preparing a connection to {address}"), cause))?;
    Ok(Dialed::Open(Stream::Tcp(stream.into())))
}
