//! The kinds of links under test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use kolo::health::Deadline;
use kolo::memory::Bell;
use kolo::transport::local::Hub;
use kolo::transport::{shm, tcp};

use crate::end::End;

/// A kind of link.
pub(crate) trait Kind {
    /// Two ends in this process.
    fn pair() -> [End; 2];
}

/// A kind whose ends may be in two processes.
pub(crate) trait Joins: Kind {
    /// This process' end, set up with the other's over a stream; one of them is the `lower`.
    fn join(stream: UnixStream, lower: bool) -> End;
}

/// Both ends of a kind that joins, in this process.
fn join_both<K: Joins>() -> [End; 2] {
    let (low, high) = UnixStream::pair().unwrap();
    let low = thread::spawn(|| K::join(low, true));
    let high = K::join(high, false);
    [low.join().unwrap(), high]
}

pub(crate) struct Local;

impl Kind for Local {
    fn pair() -> [End; 2] {
        let hub = Hub::new();
        [(3, 5), (5, 3)].map(|(me, peer)| {
            let bell = Bell::new().unwrap();
            End { link: hub.link(7, me, peer, 0, &bell), bell }
        })
    }
}

pub(crate) struct Shm;

impl Kind for Shm {
    fn pair() -> [End; 2] {
        join_both::<Self>()
    }
}

impl Joins for Shm {
    fn join(stream: UnixStream, lower: bool) -> End {
        let bell = Bell::new().unwrap();
        let deadline = Deadline::after(Some(Duration::from_secs(20)));
        End { link: shm::link_over(stream, lower, &bell, deadline).unwrap(), bell }
    }
}

pub(crate) struct Tcp;

impl Kind for Tcp {
    fn pair() -> [End; 2] {
        join_both::<Self>()
    }
}

impl Joins for Tcp {
    fn join(mut stream: UnixStream, lower: bool) -> End {
        let connection = if lower {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            stream.write_all(&port.to_le_bytes()).unwrap();
            listener.accept().unwrap().0
        } else {
            let mut port = [0; 2];
            stream.read_exact(&mut port).unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_le_bytes(port))).unwrap()
        };
        End { link: tcp::link_over(connection, None).unwrap(), bell: Bell::new().unwrap() }
    }
}
