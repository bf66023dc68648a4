//! Memory that collectives read and write.

mod allocation;
mod bell;
mod buffer;
mod bytes;
mod doorbell;
mod loan;
mod region;
mod scratch;
mod shared;
mod view;

pub use allocation::Allocations;
pub(crate) use allocation::{Allocation, Part, Stretch};
pub use bell::{Bell, Ringer};
pub use buffer::Buffer;
pub use bytes::{as_bytes, as_bytes_mut, zeroed};
pub use loan::{Loan, Loans, with_loans};
pub use region::Region;
pub use scratch::Scratch;
pub(crate) use shared::{Shareable, Shared};
pub use view::View;
