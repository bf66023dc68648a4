//! How a connection is set up, before it carries messages.

use std::net::TcpStream;

use rustix::io::Result;
use rustix::net::sockopt::{set_tcp_congestion, set_tcp_nodelay, tcp_congestion};

/// Congestion controls that send by the clock: each segment waits for a timer, whose grain is coarse beside
/// what a fast link takes for one. Streams over loopback or a virtual Ethernet took half as long again.
const PACED: &str = "bbr";

/// What is taken instead, in this order: which of them a user may ask for, the system decides.
const UNPACED: [&str; 2] = ["cubic", "reno"];

/// Sets up one end of a connection.
pub(super) fn tune(stream: &TcpStream) -> Result<()> {
    rustix::io::ioctl_fionbio(stream, true)?;
    set_tcp_nodelay(stream, true)?;
    if tcp_congestion(stream)?.starts_with(PACED) {
        // Where neither is to be had, the system's choice is slower, but works.
        let _ = UNPACED.iter().find(|name| set_tcp_congestion(stream, name).is_ok());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn no_stream_is_paced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Not everywhere is it known.
        let _ = set_tcp_congestion(&stream, PACED);
        tune(&stream).unwrap();
        assert_ne!(tcp_congestion(&stream).unwrap(), PACED);
    }
}
