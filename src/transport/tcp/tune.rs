//! How a connection is set up, before it carries messages.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Result;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_congestion, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
    set_tcp_nodelay, tcp_congestion,
};

use crate::sys::socket;

/// Congestion controls that send by the clock: each segment waits for a timer, whose grain is coarse beside
/// what a fast link takes for one. Streams over loopback or a virtual Ethernet took half as long again.
const PACED: &str = "bbr";

/// What is taken instead, in this order: which of them a user may ask for, the system decides.
const UNPACED: [&str; 2] = ["cubic", "reno"];

/// Sets up one end of a connection, whose peer's host may be silent for as long as `keepalive`.
pub(super) fn tune(stream: &impl AsFd, keepalive: Option<Duration>) -> Result<()> {
    rustix::io::ioctl_fionbio(stream, true)?;
    set_tcp_nodelay(stream, true)?;
    if tcp_congestion(stream)?.starts_with(PACED) {
        // Where neither is to be had, the system's choice is slower, but works.
        let _ = UNPACED.iter().find(|name| set_tcp_congestion(stream, name).is_ok());
    }
    keepalive.map_or(Ok(()), |keepalive| keep_alive(stream, keepalive))
}

/// Has the kernel ask the peer's host whether it is there.
///
/// | on its way   | who asks                                          | who gives up                           |
/// | ------------ | ------------------------------------------------- | -------------------------------------- |
/// | nothing      | keepalive, after half of the time, then some more | the kernel: reading says `TIMEDOUT`    |
/// | data         | TCP: it sends the data again                      | [`silent`](super::TcpLink::silent)     |
/// | a full window | TCP: it asks for room                            | the same                               |
///
/// (`TCP_USER_TIMEOUT` would give up by itself in all three, but in the last one also where the host answers that there
/// is no room yet: a peer that computes for minutes would be lost. Linux 6.18: of two connections to a stopped process
/// the one with a timeout of 5 s ended after 5 s, the other one lived, each probe answered.)
fn keep_alive(stream: &impl AsFd, keepalive: Duration) -> Result<()> {
    let seconds = keepalive.as_secs().max(2);
    let (idle, pause) = ((seconds / 2).max(1), (seconds / 6).max(1));
    set_tcp_keepidle(stream, Duration::from_secs(idle))?;
    set_tcp_keepintvl(stream, Duration::from_secs(pause))?;
    set_tcp_keepcnt(stream, ((seconds - idle) / pause) as u32)?;
    set_socket_keepalive(stream, true)?;
    socket::ask_every(stream, keepalive / 4);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn no_stream_is_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Not everywhere is it known.
        let _ = set_tcp_congestion(&stream, PACED);
        tune(&stream, None).unwrap();
        assert_ne!(tcp_congestion(&stream).unwrap(), PACED);
    }
}
