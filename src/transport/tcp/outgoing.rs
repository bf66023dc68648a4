//! Messages on their way out.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::slice;

use rustix::io::Errno;

use super::frame::{ALIGN, Frame, HEAD};
use super::{CREDIT, SLOT};
use crate::bootstrap::Carrier;
use crate::memory::View;
use crate::transport::Tag;
use crate::transport::room::Room;

/// Where a place's payload begins: on a cache line, with the frame's head right before it.
const PAYLOAD: usize = 64;
/// The most stretches of memory that one system call takes.
const STRETCHES: usize = 16;
/// What frames are padded with.
static ZEROS: [u8; ALIGN] = [0; ALIGN];

/// Frames that are not written yet, and the places in which messages are made.
///
/// A frame is a run of chunks: of one place (head, payload and padding side by side), or, if lent, of a
/// place's head, the lender's memory and padding from elsewhere. A place is free again once its frame's
/// last chunk has been written.
pub(super) struct Outgoing {
    places: [Room; CREDIT],
    /// Frames `written..made` are in the queue; frame i uses place i modulo CREDIT.
    made: usize,
    written: usize,
    queue: VecDeque<Chunk>,
    /// The length that was reserved.
    reserved: Option<usize>,
}

/// Bytes that go out next.
struct Chunk {
    start: *const u8,
    len: usize,
    /// Whether a frame ends with it.
    last: bool,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            places: std::array::from_fn(|_| Room::new(PAYLOAD + SLOT)),
            made: 0,
            written: 0,
            queue: VecDeque::new(),
            reserved: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether one more message has a place.
    pub(super) fn has_place(&self) -> bool {
        self.made - self.written < CREDIT
    }

    /// Where to write the next message.
    pub(super) fn reserve(&mut self, len: usize) -> *mut u8 {
        self.reserved = Some(len);
        self.place().at(PAYLOAD)
    }

    /// Queues the message that was written there; false where none of that length was reserved.
    pub(super) fn commit(&mut self, len: usize, tag: &Tag) -> bool {
        if self.reserved.take() != Some(len) {
            return false;
        }
        let frame = Frame::message(len, tag);
        let start = self.write_head(&frame);
        self.queue.push_back(Chunk { start, len: frame.total(), last: true });
        self.made += 1;
        true
    }

    /// Writes a message as far as the socket takes it now, and queues a copy of the rest.
    pub(super) fn send(&mut self, payload: View<'_>, tag: &Tag, socket: &impl Carrier) -> Result<(), Errno> {
        let frame = Frame::message(payload.len(), tag);
        let mut written = 0;
        if self.is_empty() {
            let (head, padding) = (frame.encode(), &ZEROS[..frame.padding()]);
            // SAFETY: a view's bytes, which nobody stores to while this method runs.
            let payload = unsafe { slice::from_raw_parts(payload.as_ptr(), payload.len()) };
            let stretches = [IoSlice::new(&head), IoSlice::new(payload), IoSlice::new(padding)];
            written = match socket.write(&stretches) {
                Ok(count) => count,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(errno) => return Err(errno),
            };
        }
        if written < frame.total() {
            let gone = written.saturating_sub(HEAD).min(payload.len());
            let rest = payload.part(gone..payload.len());
            let place = self.reserve(payload.len()).wrapping_add(gone);
            // SAFETY: a place holds a slot's bytes, and overlaps nothing of the caller's.
            unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), place, rest.len()) };
            self.commit(payload.len(), tag);
            self.advance(written);
        }
        Ok(())
    }

    /// Queues a message where it lies.
    pub(super) fn lend(&mut self, pieces: &[View<'_>], len: usize, tag: &Tag) {
        self.reserved = None;
        let frame = Frame::message(len, tag);
        let head = self.write_head(&frame);
        self.queue.push_back(Chunk { start: head, len: HEAD, last: false });
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            self.queue.push_back(Chunk { start: piece.as_ptr(), len: piece.len(), last: false });
        }
        if frame.padding() > 0 {
            self.queue.push_back(Chunk { start: ZEROS.as_ptr(), len: frame.padding(), last: false });
        }
        self.queue.back_mut().expect("the head is there").last = true;
        self.made += 1;
    }

    fn place(&self) -> &Room {
        debug_assert!(self.has_place());
        &self.places[self.made % CREDIT]
    }

    /// Writes the head of the next frame into its place, and says where.
    fn write_head(&self, frame: &Frame) -> *const u8 {
        let head = self.place().at(PAYLOAD - HEAD);
        // SAFETY: the head's bytes of a free place, that nobody else looks at.
        unsafe { head.cast::<[u8; HEAD]>().write_unaligned(frame.encode()) };
        head
    }

    /// Forgets what was not written. Whether the peer got nothing but whole frames.
    pub(super) fn clear(&mut self) -> bool {
        // A frame that was begun is shorter than frames are, or begins elsewhere than they do.
        let begun = self.queue.front().is_some_and(|chunk| !self.begins_frame(chunk));
        self.queue.clear();
        (self.made, self.written, self.reserved) = (0, 0, None);
        !begun
    }

    fn begins_frame(&self, chunk: &Chunk) -> bool {
        std::ptr::eq(chunk.start, self.places[self.written % CREDIT].at(PAYLOAD - HEAD))
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self, socket: &impl Carrier) -> Result<(), Errno> {
        while !self.queue.is_empty() {
            match self.write(socket) {
                Ok(count) => self.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        // Begin again with the place that is warm.
        (self.made, self.written) = (0, 0);
        match socket.flush() {
            Err(Errno::AGAIN) => Ok(()),
            flushed => flushed,
        }
    }

    fn write(&self, socket: &impl Carrier) -> Result<usize, Errno> {
        let mut stretches = [IoSlice::new(&[]); STRETCHES];
        let count = self.queue.len().min(STRETCHES);
        for (stretch, chunk) in stretches.iter_mut().zip(&self.queue) {
            // SAFETY: a place that is not free, bytes of the program, or memory that its lender keeps as
            // it is until it is settled, which it is not while it is in the queue.
            *stretch = IoSlice::new(unsafe { slice::from_raw_parts(chunk.start, chunk.len) });
        }
        socket.write(&stretches[..count])
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(chunk) = self.queue.front_mut() {
            if count < chunk.len {
                chunk.start = chunk.start.wrapping_add(count);
                chunk.len -= count;
                return;
            }
            count -= chunk.len;
            self.written += usize::from(chunk.last);
            self.queue.pop_front();
        }
    }
}
