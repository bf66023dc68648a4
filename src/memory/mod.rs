//! Memory that collectives read and write.

mod bell;
mod buffer;
mod bytes;
mod loan;
mod scratch;
mod view;

pub use bell::Bell;
pub use buffer::Buffer;
pub use bytes::{as_bytes, as_bytes_mut, zeroed};
pub use loan::{Loan, Loans, with_loans};
pub use scratch::Scratch;
pub use view::View;
