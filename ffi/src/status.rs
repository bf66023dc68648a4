//! Status codes, and the text of the last error.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use kolo_core::{Kind, Result};

/// How a call ended. Everything but KOLO_OK leaves a line for kolo_last_error.
#[repr(C)]
#[allow(non_camel_case_types, reason = "the names of C")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Well.
    KOLO_OK = 0,
    /// The caller broke a rule that this rank alone can see; the communicator stays usable.
    KOLO_USAGE = 1,
    /// Two ranks called differently: another collective, count, type, operator or root.
    KOLO_MISMATCH = 2,
    /// The deadline passed while this rank waited for others.
    KOLO_DEADLINE = 3,
    /// A rank died, or left after an error of its own.
    KOLO_PEER_LOST = 4,
    /// Somebody aborted the communicator.
    KOLO_ABORTED = 5,
    /// A connection was refused: a wrong secret, a wrong version, a stranger.
    KOLO_REFUSED = 6,
    /// The operating system said no.
    KOLO_SYSTEM = 7,
    /// A defect of kolo itself; the communicator is aborted.
    KOLO_INTERNAL = 8,
}

impl From<Kind> for Status {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::KOLO_USAGE,
            Kind::Mismatch => Self::KOLO_MISMATCH,
            Kind::Deadline => Self::KOLO_DEADLINE,
            Kind::PeerLost => Self::KOLO_PEER_LOST,
            Kind::Aborted => Self::KOLO_ABORTED,
            Kind::Refused => Self::KOLO_REFUSED,
            Kind::System => Self::KOLO_SYSTEM,
            // Kinds may be added; a code for each is added here with them.
            _ => Self::KOLO_INTERNAL,
        }
    }
}

thread_local! {
    /// The one state outside communicators: C has no other way to hand out a text with a code.
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// One line about the last call of this thread that did not return KOLO_OK; empty if there was none. It
/// stays readable until the next such call of this thread. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn kolo_last_error() -> *const c_char {
    LAST_ERROR.try_with(|text| text.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn kolo_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    const TEXT: &CStr = match CStr::from_bytes_with_nul(VERSION.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    };
    TEXT.as_ptr()
}

/// Runs the body of an exported function. An error becomes a status and this thread's text, and so does a
/// panic.
pub(crate) fn guard(name: &str, body: impl FnOnce() -> Result<()>) -> Status {
    let (status, text) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return Status::KOLO_OK,
        Ok(Err(error)) => (error.kind().into(), format!("{name}: {error}")),
        Err(panic) => (Status::KOLO_INTERNAL, format!("{name}: a defect of kolo: {}", message(&*panic))),
    };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // While a thread ends its locals may be gone: then there is nobody to read the text.
    _ = LAST_ERROR.try_with(|last| last.replace(text));
    status
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}
