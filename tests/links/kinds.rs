//! The kinds of links under test.

use std::io::{Read, Write};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kolo::bootstrap::{Opening, SHARE, Sealed, Secret, Session};
use kolo::config;
use kolo::health::Deadline;
use kolo::memory::Bell;
use kolo::transport::local::Hub;
use kolo::transport::{fabric, shm, tcp};

use crate::end::End;

/// A kind of link.
pub(crate) trait Kind {
    /// Two ends in this process.
    fn pair() -> [End; 2];

    /// Why there are none of this kind here.
    fn missing() -> Option<String> {
        None
    }
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
            End::new(hub.link(7, me, peer, 0, &bell), bell)
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
        End::new(shm::link_over(stream, lower, &bell, deadline).unwrap(), bell)
    }
}

pub(crate) struct Tcp;

impl Kind for Tcp {
    fn pair() -> [End; 2] {
        join_both::<Self>()
    }
}

impl Joins for Tcp {
    fn join(stream: UnixStream, lower: bool) -> End {
        End::new(tcp::link_over(connect(stream, lower), None).unwrap(), Bell::new().unwrap())
    }
}

/// The same, encrypted.
pub(crate) struct SealedTcp;

impl Kind for SealedTcp {
    fn pair() -> [End; 2] {
        join_both::<Self>()
    }
}

impl Joins for SealedTcp {
    fn join(stream: UnixStream, lower: bool) -> End {
        let mut stream = connect(stream, lower);
        let session = session(&mut stream, lower);
        End::new(tcp::link_over(Sealed::new(stream, session), None).unwrap(), Bell::new().unwrap())
    }
}

/// What both ends of a connection agree on, without a handshake around it.
pub(crate) fn session(stream: &mut TcpStream, lower: bool) -> Session {
    let secret = Secret::new(b"known to both ends alone").unwrap();
    let mut theirs = [0; SHARE];
    if lower {
        let (opening, share) = Opening::new(&secret, b"links").unwrap();
        stream.write_all(&share).unwrap();
        stream.read_exact(&mut theirs).unwrap();
        return opening.finish(&theirs).unwrap();
    }
    stream.read_exact(&mut theirs).unwrap();
    let (session, share) = Opening::answer(&secret, b"links", &theirs).unwrap().unwrap();
    stream.write_all(&share).unwrap();
    session
}

/// A TCP connection to who is at the other end of a stream.
fn connect(mut stream: UnixStream, lower: bool) -> TcpStream {
    if lower {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        stream.write_all(&port.to_le_bytes()).unwrap();
        return listener.accept().unwrap().0;
    }
    let mut port = [0; 2];
    stream.read_exact(&mut port).unwrap();
    TcpStream::connect((Ipv4Addr::LOCALHOST, u16::from_le_bytes(port))).unwrap()
}

/// libfabric, by one of its providers. Each end has an endpoint of its own, as each rank of a job has.
pub(crate) trait Provider {
    const NAME: &'static str;
}

pub(crate) struct OfTcp;

impl Provider for OfTcp {
    const NAME: &'static str = "tcp";
}

pub(crate) struct OfShm;

impl Provider for OfShm {
    const NAME: &'static str = "shm";
}

pub(crate) struct Fabric<P>(PhantomData<P>);

impl<P: Provider> Fabric<P> {
    fn endpoint() -> Result<Arc<fabric::Endpoint>, String> {
        let library = std::env::var_os("KOLO_LIBFABRIC").map(Into::into);
        let settings = config::Fabric { library, provider: Some(P::NAME.into()) };
        fabric::Endpoint::open(&settings, Some("127.0.0.1"))
    }

    fn end(endpoint: &Arc<fabric::Endpoint>, stream: UnixStream, lower: bool) -> End {
        let (bell, deadline) = (Bell::new().unwrap(), Deadline::after(Some(Duration::from_secs(20))));
        let stream = match P::NAME {
            "shm" => fabric::Stream::Unix(stream),
            _ => fabric::Stream::Tcp(connect(stream, lower).into()),
        };
        End::new(fabric::link_over(endpoint, stream, &bell, deadline).unwrap(), bell)
    }
}

impl<P: Provider> Kind for Fabric<P> {
    fn pair() -> [End; 2] {
        let (low, high) = UnixStream::pair().unwrap();
        let endpoints = [(); 2].map(|()| Self::endpoint().unwrap());
        let ends = thread::scope(|scope| {
            let low = scope.spawn(|| Self::end(&endpoints[0], low, true));
            let high = Self::end(&endpoints[1], high, false);
            [low.join().unwrap(), high]
        });
        // In one process, shm's endpoints must not outlive each other.
        ends.map(|end| End { keeps: endpoints.to_vec(), ..end })
    }

    fn missing() -> Option<String> {
        Self::endpoint().err()
    }
}

impl<P: Provider> Joins for Fabric<P> {
    fn join(stream: UnixStream, lower: bool) -> End {
        Self::end(&Self::endpoint().unwrap(), stream, lower)
    }
}
