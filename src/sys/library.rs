//! Libraries that are loaded at run time, where they are installed.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// All that a library needs is found before anything of it is called.
const RTLD_NOW: c_int = 2;

// SAFETY: as in <dlfcn.h>.
unsafe extern "C" {
    fn dlopen(path: *const c_char, mode: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlvsym(library: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
    fn dlerror() -> *mut c_char;
}

/// A library. It stays loaded: its threads, and what it has left to be done at the process' end, may need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: a handle, which is never closed; looking up in it is allowed to any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the first of `paths` that can be loaded, or says why none can. One without a `/` is looked for where the
    /// system looks.
    pub(crate) fn open(paths: &[impl AsRef<Path>]) -> Result<Self, String> {
        let mut why = String::new();
        for path in paths {
            let Ok(path) = CString::new(path.as_ref().as_os_str().as_bytes()) else { continue };
            // SAFETY: a path that ends with a zero; whose libraries these are, who installed them answers for.
            let handle = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
            match NonNull::new(handle) {
                Some(handle) => return Ok(Self(handle)),
                None => why = last_error(),
            }
        }
        Err(why)
    }

    /// Where the library has what it calls `name`.
    pub(crate) fn symbol(self, name: &CStr) -> Result<NonNull<c_void>, String> {
        // SAFETY: a library that is loaded, and a name that ends with a zero.
        NonNull::new(unsafe { dlsym(self.0.as_ptr(), name.as_ptr()) }).ok_or_else(last_error)
    }

    /// Where the library has what it calls `name` in that version of its interface.
    pub(crate) fn versioned(self, name: &CStr, version: &CStr) -> Result<NonNull<c_void>, String> {
        // SAFETY: a library that is loaded, and names that end with a zero.
        let found = unsafe { dlvsym(self.0.as_ptr(), name.as_ptr(), version.as_ptr()) };
        NonNull::new(found).ok_or_else(last_error)
    }
}

fn last_error() -> String {
    // SAFETY: it returns null, or text that lasts until this thread's next call.
    let text = unsafe { dlerror() };
    if text.is_null() {
        return "it has no such symbol".into();
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_said() {
        let libc = Library::open(&["libnowhere.so.7", "libc.so.6"]).unwrap();
        assert!(libc.symbol(c"getpid").is_ok());
        assert!(libc.symbol(c"kolo_has_no_such_thing").unwrap_err().contains("kolo_has_no_such_thing"));
        assert!(
            libc.versioned(c"kolo_has_no_such_thing", c"GLIBC_2.2.5").unwrap_err().contains("kolo_has_no")
        );
        assert!(Library::open(&["libnowhere.so.7"]).unwrap_err().contains("libnowhere.so.7"));
    }
}
