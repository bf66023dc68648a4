//! Encryption of TCP connections (`KOLO_ENCRYPT=1`): the Noise protocol, under a key that the job's secret gives.
//!
//! Each side draws a key for this connection alone and tells its public half, its *share*, in the handshake. What both
//! make of the shares, the secret and all that the handshake said before is the keys of the connection: so whoever learns
//! the secret later cannot read what was recorded, and nothing of one connection fits another, or the other direction.
//! From then on bytes go in records:
//!
//! ```text
//! length  bytes, encrypted  tag
//! 2       1 to 65,504       16
//! ```
//!
//! A record's number is part of its tag, so records cannot be left out, doubled or reordered. The length is not, but a
//! changed one puts the tag elsewhere. Nothing that is read is believed before its tag was checked, and after a wrong one
//! nothing is. That a connection was cut between two records its records do not tell; those above say when they are done.

use std::cell::RefCell;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use snow::{Builder, HandshakeState, TransportState};

use super::carrier::Carrier;
use super::secret::Secret;
use crate::error::{Error, Result};

/// AES-GCM because processors do it: a record of 64 bytes takes 0.3 us, by ChaChaPoly 1.7; long ones take the same by
/// either, some 1.4 bytes a nanosecond.
const PROTOCOL: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// The bytes of a share: a public key and a tag.
pub const SHARE: usize = 48;
/// The bytes of a record's length, and of its tag.
const HEAD: usize = 2;
const TAG: usize = 16;
/// The most bytes that one record carries: all of it is less than 64 KiB, which is Noise's bound.
const MOST: usize = (64 << 10) - 32;
const RECORD: usize = HEAD + MOST + TAG;
/// How much ciphertext is read, or written, at a time.
const BUFFER: usize = 4 * RECORD;
/// Both sides take a new key after so many records: AES-GCM is as good as proved for 2^32 blocks under one key. The
/// records' 64-bit number, which goes on, does not come to its end.
const RECORDS_PER_KEY: u64 = if cfg!(test) { 8 } else { 1 << 20 };

/// Half a session: this side's share is drawn, the other's has not come.
pub struct Opening(Box<HandshakeState>);

/// A connection's keys.
pub struct Session(Box<TransportState>);

impl Opening {
    /// Begins a session with whoever knows the secret and takes `said` for what was said before. The share is for the
    /// other side, which [answers](Opening::answer) it.
    ///
    /// # Errors
    /// `System` where no random bytes can be had.
    pub fn new(secret: &Secret, said: &[u8]) -> Result<(Self, [u8; SHARE])> {
        let key = secret.prove("noise", &[]);
        let mut opening = Box::new(builder(&key, said).build_initiator().expect("nothing is missing"));
        let share = share_of(&mut opening)?;
        Ok((Self(opening), share))
    }

    /// The other side's part: its session, and the share that [finishes](Opening::finish) this side's. Nothing where the
    /// share is not of one who knows the same.
    ///
    /// # Errors
    /// `System` where no random bytes can be had.
    pub fn answer(secret: &Secret, said: &[u8], share: &[u8]) -> Result<Option<(Session, [u8; SHARE])>> {
        let key = secret.prove("noise", &[]);
        let mut opening = builder(&key, said).build_responder().expect("nothing is missing");
        if opening.read_message(share, &mut []).is_err() {
            return Ok(None);
        }
        let share = share_of(&mut opening)?;
        Ok(session(opening).map(|session| (session, share)))
    }

    /// The session, where the answer is of one who knows the same.
    pub fn finish(mut self, share: &[u8]) -> Option<Session> {
        self.0.read_message(share, &mut []).ok()?;
        session(*self.0)
    }
}

fn builder<'a>(key: &'a [u8; 32], said: &'a [u8]) -> Builder<'a> {
    let protocol = PROTOCOL.parse().expect("a protocol that is compiled in");
    let builder = Builder::new(protocol).psk(0, key).and_then(|builder| builder.prologue(said));
    builder.expect("each is set once")
}

fn share_of(opening: &mut HandshakeState) -> Result<[u8; SHARE]> {
    let mut share = [0; SHARE];
    let written = opening.write_message(&[], &mut share);
    written.map_err(|cause| Error::system("drawing a key for a connection", cause))?;
    Ok(share)
}

fn session(opening: HandshakeState) -> Option<Session> {
    opening.into_transport_mode().ok().map(|keys| Session(Box::new(keys)))
}

/// A TCP connection all of whose bytes are encrypted.
pub struct Sealed {
    stream: TcpStream,
    state: RefCell<State>,
}

struct State {
    session: Session,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// What has come: records at `start..end` of the buffer, the last of which may be cut off, and before them bytes that
/// were decrypted and found no room yet.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    opened: Vec<u8>,
    taken: usize,
    /// Whether the socket is known to have no more, for now.
    drained: bool,
    /// Why no more will be read.
    broken: Option<Errno>,
}

/// What is to go: records at `sent..end` of the buffer.
struct Outgoing {
    buffer: Vec<u8>,
    sent: usize,
    end: usize,
    /// Where the bytes of a record are gathered.
    gathered: Vec<u8>,
}

impl Sealed {
    /// From here on all bytes of `stream` are the session's.
    pub fn new(stream: TcpStream, session: Session) -> Self {
        // Zeros from the system, which gives the memory where it is used.
        let incoming = Incoming {
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            opened: Vec::new(),
            taken: 0,
            drained: false,
            broken: None,
        };
        let outgoing = Outgoing { buffer: vec![0; BUFFER], sent: 0, end: 0, gathered: Vec::new() };
        Self { stream, state: RefCell::new(State { session, incoming, outgoing }) }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Carrier for Sealed {
    fn read(&self, into: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
        let State { session, incoming, .. } = &mut *self.state.borrow_mut();
        incoming.drained = false;
        let mut count = 0;
        for stretch in into {
            let mut filled = 0;
            while filled < stretch.len() {
                match incoming.take(&mut stretch[filled..], &self.stream, session) {
                    Ok(0) => return Ok(count + filled),
                    Ok(taken) => filled += taken,
                    // Whatever it was, it is told again.
                    Err(_) if count + filled > 0 => return Ok(count + filled),
                    Err(errno) => return Err(errno),
                }
            }
            count += filled;
        }
        Ok(count)
    }

    fn write(&self, from: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let State { session, outgoing, .. } = &mut *self.state.borrow_mut();
        let mut count = 0;
        let mut stretches = from.iter().map(|stretch| &**stretch).filter(|stretch| !stretch.is_empty());
        let mut rest: &[u8] = stretches.next().unwrap_or_default();
        while !rest.is_empty() {
            if !outgoing.has_room() {
                match outgoing.flush(&self.stream) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) if count > 0 => return Ok(count),
                    Err(errno) => return Err(errno),
                }
            }
            if rest.len() < MOST {
                outgoing.gathered.clear();
                while !rest.is_empty() && outgoing.gathered.len() < MOST {
                    let (now, later) = rest.split_at(rest.len().min(MOST - outgoing.gathered.len()));
                    outgoing.gathered.extend_from_slice(now);
                    rest = if later.is_empty() { stretches.next().unwrap_or_default() } else { later };
                }
                count += outgoing.gathered.len();
                outgoing.seal(None, session)?;
            } else {
                let (now, later) = rest.split_at(MOST);
                outgoing.seal(Some(now), session)?;
                count += MOST;
                rest = if later.is_empty() { stretches.next().unwrap_or_default() } else { later };
            }
        }
        match outgoing.flush(&self.stream) {
            Ok(()) | Err(Errno::AGAIN) => Ok(count),
            Err(errno) => Err(errno),
        }
    }

    fn flush(&self) -> Result<(), Errno> {
        self.state.borrow_mut().outgoing.flush(&self.stream)
    }

    fn unsent(&self) -> bool {
        self.state.borrow().outgoing.end > 0
    }
}

impl Incoming {
    /// Some of what has come, at least one byte; 0 at the end.
    fn take(&mut self, into: &mut [u8], stream: &TcpStream, session: &mut Session) -> Result<usize, Errno> {
        if self.taken == self.opened.len() {
            let Some(len) = self.record(stream)? else { return Ok(0) };
            let bytes = len - TAG;
            if bytes <= into.len() {
                self.open(len, Some(into), session)?;
                return Ok(bytes);
            }
            self.open(len, None, session)?;
        }
        let left = &self.opened[self.taken..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }

    /// The length of the record at `start`, once it has come whole; nothing at the end.
    fn record(&mut self, stream: &TcpStream) -> Result<Option<usize>, Errno> {
        loop {
            if let Some(errno) = self.broken {
                return Err(errno);
            }
            let come = &self.buffer[self.start..self.end];
            if let Some(&head) = come.first_chunk::<HEAD>() {
                let len = usize::from(u16::from_le_bytes(head));
                if !(TAG + 1..=TAG + MOST).contains(&len) {
                    return Err(self.breaks(Errno::BADMSG));
                }
                if come.len() >= HEAD + len {
                    return Ok(Some(len));
                }
            }
            if self.drained {
                return Err(Errno::AGAIN);
            }
            match self.fill(stream) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Errno::AGAIN),
                Err(errno) => return Err(self.breaks(errno)),
            }
        }
    }

    fn fill(&mut self, stream: &TcpStream) -> Result<usize, Errno> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + RECORD > BUFFER {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = BUFFER - self.end;
        let (count, _) = recv(stream, &mut self.buffer[self.end..], RecvFlags::DONTWAIT)?;
        self.end += count;
        self.drained = count < room;
        Ok(count)
    }

    /// Decrypts the record of so many bytes at `start`, to where it is wanted or to this side's own place.
    fn open(&mut self, len: usize, into: Option<&mut [u8]>, session: &mut Session) -> Result<(), Errno> {
        let record = &self.buffer[self.start + HEAD..][..len];
        let place = match into {
            Some(into) => into,
            None => {
                self.taken = 0;
                self.opened.resize(len - TAG, 0);
                &mut self.opened[..]
            }
        };
        let opened = session.0.read_message(record, place);
        if opened.is_err() {
            // What lies in that place is nobody's bytes.
            self.opened.clear();
            self.taken = 0;
            return Err(self.breaks(Errno::BADMSG));
        }
        self.start += HEAD + len;
        if session.0.receiving_nonce().is_multiple_of(RECORDS_PER_KEY) {
            session.0.rekey_incoming();
        }
        Ok(())
    }

    #[cold]
    fn breaks(&mut self, errno: Errno) -> Errno {
        *self.broken.insert(errno)
    }
}

impl Outgoing {
    /// Whether one more record has room.
    fn has_room(&self) -> bool {
        self.end + RECORD <= BUFFER
    }

    /// Encrypts these bytes, or those that were gathered, into the next record.
    fn seal(&mut self, bytes: Option<&[u8]>, session: &mut Session) -> Result<(), Errno> {
        let bytes = bytes.unwrap_or(&self.gathered);
        let (head, room) = self.buffer[self.end..].split_at_mut(HEAD);
        // Only the last of 2^64 numbers is none.
        let len = session.0.write_message(bytes, room).map_err(|_| Errno::OVERFLOW)?;
        head.copy_from_slice(&(len as u16).to_le_bytes());
        self.end += HEAD + len;
        if session.0.sending_nonce().is_multiple_of(RECORDS_PER_KEY) {
            session.0.rekey_outgoing();
        }
        Ok(())
    }

    fn flush(&mut self, stream: &TcpStream) -> Result<(), Errno> {
        while self.sent < self.end {
            match send(stream, &self.buffer[self.sent..self.end], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        (self.sent, self.end) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
