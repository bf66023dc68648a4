//! What was begun with libfabric, and who is to hear what came of it.

use std::cell::UnsafeCell;

use super::{PIECES, PLACES, RING, WINDOW};
use crate::error::Result;
use crate::memory::View;
use crate::sys::fabric::{Context, Port, Registration};
use crate::transport::room::Room;

/// What an operation moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The message in one of the places for those to be sent.
    Sent(u8),
    /// The payload that follows it.
    Body(u8),
    /// Something that is no message.
    News(u8),
    /// What comes to one of the places of the ring.
    Came(u8),
    /// The payload that follows what came.
    Placed(u8),
    /// A piece of it, of [`PIECES`] that each may have.
    Piece(u8),
}

/// What the library is handed of an operation, and gives back. The context stands first, so that its address is this one's.
#[repr(C)]
struct Operation {
    context: Context,
    lane: u32,
    part: Part,
}

/// News that may be on their way.
pub(super) const NEWS: u8 = 4;
/// The operations of one lane. Each is the library's from its beginning to its completion.
pub(super) struct Operations {
    each: Box<[UnsafeCell<Operation>]>,
    /// How many are the library's.
    outstanding: usize,
}

impl Part {
    /// How many there are of each sort, in order.
    const COUNTS: [usize; 6] = [PLACES, PLACES, NEWS as usize, RING, WINDOW, WINDOW * PIECES];

    fn index(self) -> usize {
        let (sort, place) = match self {
            Self::Sent(place) => (0, place),
            Self::Body(place) => (1, place),
            Self::News(place) => (2, place),
            Self::Came(place) => (3, place),
            Self::Placed(place) => (4, place),
            Self::Piece(piece) => (5, piece),
        };
        Self::COUNTS[..sort].iter().sum::<usize>() + usize::from(place)
    }

    fn all() -> impl Iterator<Item = Self> {
        let sorts =
            [Self::Sent, Self::Body, Self::News, Self::Came, Self::Placed, Self::Piece as fn(u8) -> Self];
        sorts.into_iter().zip(Self::COUNTS).flat_map(|(sort, count)| (0..count as u8).map(sort))
    }
}

impl Operations {
    pub(super) fn new(lane: u32) -> Self {
        let operation = |part| UnsafeCell::new(Operation { context: Context::default(), lane, part });
        Self { each: Part::all().map(operation).collect(), outstanding: 0 }
    }

    /// What the library is to be handed for a part.
    pub(super) fn context(&self, part: Part) -> *mut Context {
        self.each[part.index()].get().cast()
    }

    /// Notes whether an operation has begun.
    pub(super) fn note(&mut self, begun: bool) -> bool {
        self.outstanding += usize::from(begun);
        begun
    }

    /// Whose completion it was.
    ///
    /// # Safety
    /// The context must be one that [`Operations::context`] gave, of operations that still exist.
    pub(super) unsafe fn of(context: *mut Context) -> (u32, Part) {
        let operation = context.cast::<Operation>();
        // SAFETY: as the caller promises; the library writes to the context alone.
        unsafe { ((*operation).lane, (*operation).part) }
    }

    /// Notes that one is complete.
    pub(super) fn completed(&mut self) {
        self.outstanding -= 1;
    }

    /// Whether the library has none of them.
    pub(super) fn idle(&self) -> bool {
        self.outstanding == 0
    }

    /// Takes all of them back from a library that has closed its endpoint.
    pub(super) fn forget(&mut self) {
        self.outstanding = 0;
    }
}

/// Memory of kolo's own that the library may read and write. The registration ends before the memory does.
pub(super) struct Buffer {
    registration: Option<Registration>,
    room: Room,
}

impl Buffer {
    pub(super) fn new(port: &Port, len: usize) -> Result<Self> {
        let room = Room::new(len);
        // SAFETY: the room's own bytes, which stay where they are until it is dropped.
        let registration = unsafe { port.register(room.at(0), len) };
        let registration = registration.map_err(|fault| super::refused(port, "registering memory", fault))?;
        Ok(Self { registration, room })
    }

    pub(super) fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    pub(super) fn at(&self, at: usize) -> *mut u8 {
        self.room.at(at)
    }

    /// Whether a view begins in it.
    pub(super) fn holds(&self, view: View<'_>) -> bool {
        self.room.holds(view.as_ptr())
    }
}
