//! What is on its way over a link during a proof.

use super::CREDIT;
use super::value::Value;
use crate::plan::step::Span;

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The blocks that it holds; nothing in a signal.
    pub(super) extent: Option<Span>,
    /// Its value where it is one block.
    pub(super) value: Value,
    /// Its values where it is more.
    pub(super) values: Vec<Value>,
    /// The length of the longest chain of messages that ends with it.
    pub(super) hops: u32,
}

impl Default for Message {
    fn default() -> Self {
        Self { extent: None, value: Value::UNDEFINED, values: Vec::new(), hops: 0 }
    }
}

/// The messages that wait on a link, in slots that are used in turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// How many wait, the first of them in slot `head`.
    pub(super) waiting: u8,
    head: u8,
    slots: [Message; CREDIT as usize],
}

impl Slots {
    /// Where to put the next message, for which there is credit.
    pub(super) fn push(&mut self) -> &mut Message {
        let slot = (self.head + self.waiting) % CREDIT;
        self.waiting += 1;
        &mut self.slots[usize::from(slot)]
    }

    /// The message that waits first.
    pub(super) fn pop(&mut self) -> &Message {
        let slot = self.head;
        self.head = (self.head + 1) % CREDIT;
        self.waiting -= 1;
        &self.slots[usize::from(slot)]
    }
}
