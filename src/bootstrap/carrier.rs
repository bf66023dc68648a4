//! What carries bytes between two ranks: a socket as it is, or a sealed TCP connection. Nothing here blocks.

use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, readv};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use super::seal::Sealed;

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One end of an ordered stream of bytes, whose descriptor tells when there is more, or room for more.
pub trait Carrier: AsFd + Send {
    /// Reads what has come into one stretch after the other; 0 at the end. Fewer bytes than there is room for
    /// mean that, for now, no more is there. The sockets do not block.
    ///
    /// # Errors
    /// `AGAIN` where nothing has come; `BADMSG` where what has come was changed on its way.
    fn read(&self, into: &mut [IoSliceMut<'_>]) -> Result<usize, Errno>;

    /// Takes as many of these bytes as it can now.
    ///
    /// # Errors
    /// `AGAIN` where it can take none.
    fn write(&self, from: &[IoSlice<'_>]) -> Result<usize, Errno>;

    /// Sends what it has taken and still holds.
    ///
    /// # Errors
    /// `AGAIN` where some of it stays.
    fn flush(&self) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether it holds any of what it has taken.
    fn unsent(&self) -> bool {
        false
    }
}

/// The socket itself: one system call each, the cheapest that does it.
macro_rules! carries {
    ($($socket:ty),*) => {
        $(impl Carrier for $socket {
            #[inline]
            fn read(&self, into: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
                match into {
                    [one] => recv(self, &mut **one, RecvFlags::DONTWAIT).map(|(count, _)| count),
                    _ => readv(self, into),
                }
            }

            #[inline]
            fn write(&self, from: &[IoSlice<'_>]) -> Result<usize, Errno> {
                match from {
                    [one] => send(self, one, SEND),
                    _ => sendmsg(self, from, &mut SendAncillaryBuffer::default(), SEND),
                }
            }
        })*
    };
}

carries!(TcpStream, UnixStream);

/// A TCP connection to a rank, as their handshake has left it.
pub enum Connection {
    /// Whoever is on its way can read it.
    Plain(TcpStream),
    /// Nobody can.
    Sealed(Sealed),
}

impl Connection {
    pub(super) fn carrier(&self) -> &dyn Carrier {
        match self {
            Self::Plain(stream) => stream,
            Self::Sealed(sealed) => sealed,
        }
    }

    /// Its end, whichever kind it is.
    pub fn boxed(self) -> Box<dyn Carrier> {
        match self {
            Self::Plain(stream) => Box::new(stream),
            Self::Sealed(sealed) => Box::new(sealed),
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Sealed(sealed) => sealed.socket(),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<Sealed> for Connection {
    fn from(sealed: Sealed) -> Self {
        Self::Sealed(sealed)
    }
}
