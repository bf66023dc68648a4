//! PMIx: a store of keys and values that a launcher keeps for its ranks, in a server on each host.
//!
//! Of the client library (`libpmix.so.2`) as versions 3 to 5 have it, what an exchange between ranks takes. (PMIx
//! Standard 4.1: 3.2 names the types, 5 the beginning and end, 6 and 7 the keys and values, 8 the fence.)

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::{transmute_copy, zeroed};
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::slice;

use super::library::Library;

/// `pmix_status_t`.
type Status = c_int;

const SUCCESS: Status = 0;
const NOT_FOUND: Status = -46;
/// `PMIX_RANK_WILDCARD`: all ranks of a namespace.
const ALL_RANKS: u32 = u32::MAX - 1;
/// `PMIX_GLOBAL`: a value for ranks of this host and of others.
const GLOBAL: u8 = 3;
/// `PMIX_COLLECT_DATA`: a fence is to exchange what was committed.
const COLLECT: &CStr = c"pmix.collect";
/// `PMIX_TIMEOUT`: after how many seconds to give up.
const TIMEOUT: &CStr = c"pmix.timeout";
/// `PMIX_BOOL`, `PMIX_INT`, `PMIX_BYTE_OBJECT`: which of the union's fields holds a value.
const BOOL: u16 = 1;
const INT: u16 = 6;
const BYTES: u16 = 27;

/// `pmix_proc_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Proc {
    namespace: [u8; 256],
    rank: u32,
}

/// `pmix_byte_object_t`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bytes {
    start: *mut u8,
    len: usize,
}

/// The union in `pmix_value_t`.
#[repr(C)]
union Data {
    flag: bool,
    integer: c_int,
    bytes: Bytes,
    /// Its longest field is an environment variable's: two addresses and a character.
    longest: [usize; 3],
}

/// `pmix_value_t`.
#[repr(C)]
struct Value {
    kind: u16,
    data: Data,
}

/// `pmix_info_t`.
#[repr(C)]
struct Info {
    key: [u8; 512],
    flags: u32,
    value: Value,
}

impl Info {
    fn new(key: &CStr, kind: u16, data: Data) -> Self {
        let mut info = Self { key: [0; 512], flags: 0, value: Value { kind, data } };
        let key = key.to_bytes();
        info.key[..key.len()].copy_from_slice(key);
        info
    }

    fn flag(key: &CStr) -> Self {
        // SAFETY: zeros are a value of each of its fields.
        let mut data: Data = unsafe { zeroed() };
        data.flag = true;
        Self::new(key, BOOL, data)
    }

    fn number(key: &CStr, number: c_int) -> Self {
        // SAFETY: zeros are a value of each of its fields.
        let mut data: Data = unsafe { zeroed() };
        data.integer = number;
        Self::new(key, INT, data)
    }
}

/// Declares the functions that are used, and finds them all.
macro_rules! functions {
    ($($field:ident = $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// The library's functions.
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn find(library: Library) -> Result<Self, String> {
                $(
                    let name = concat!(stringify!($name), "\0").as_bytes();
                    let name = CStr::from_bytes_with_nul(name).expect("it ends with its only zero");
                    let $field = library.symbol(name)?;
                )*
                // SAFETY: the functions of these names have had these types since version 3.
                Ok(unsafe { Self { $($field: transmute_copy(&$field),)* } })
            }
        }
    };
}

functions! {
    init = PMIx_Init(*mut Proc, *mut Info, usize) -> Status;
    finalize = PMIx_Finalize(*const Info, usize) -> Status;
    put = PMIx_Put(u8, *const c_char, *mut Value) -> Status;
    commit = PMIx_Commit() -> Status;
    fence = PMIx_Fence(*const Proc, usize, *const Info, usize) -> Status;
    get = PMIx_Get(*const Proc, *const c_char, *const Info, usize, *mut *mut Value) -> Status;
    describe = PMIx_Error_string(Status) -> *const c_char;
    version = PMIx_Get_version() -> *const c_char;
}

// SAFETY: as in <stdlib.h>.
unsafe extern "C" {
    fn free(address: *mut c_void);
}

/// The library, before anybody asked for a server.
pub(crate) struct Pmix {
    functions: Functions,
}

/// What a call of the library came to: why it failed, in its own words.
pub(crate) type Outcome<T> = Result<T, String>;

impl Pmix {
    /// Loads the first of `paths` that there is.
    pub(crate) fn load(paths: &[impl AsRef<Path>]) -> Outcome<Self> {
        Ok(Self { functions: Functions::find(Library::open(paths)?)? })
    }

    /// What the library says of its version.
    pub(crate) fn version(&self) -> String {
        // SAFETY: it takes nothing and returns text that lasts.
        unsafe { CStr::from_ptr((self.functions.version)()) }.to_string_lossy().into_owned()
    }

    /// Finds the launcher's server. May wait for it without end.
    pub(crate) fn open(self) -> Outcome<Client> {
        let mut me = Proc { namespace: [0; 256], rank: 0 };
        // SAFETY: it writes the one, and there are none of the others.
        let status = unsafe { (self.functions.init)(&mut me, null_mut(), 0) };
        self.functions.check(status)?;
        Ok(Client { functions: self.functions, me })
    }
}

impl Functions {
    fn check(&self, status: Status) -> Outcome<()> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: it takes any number and returns text that lasts.
        Err(unsafe { CStr::from_ptr((self.describe)(status)) }.to_string_lossy().into_owned())
    }
}

/// A rank's end of the store, until it is dropped.
pub(crate) struct Client {
    functions: Functions,
    me: Proc,
}

impl Client {
    /// This rank.
    pub(crate) fn rank(&self) -> u32 {
        self.me.rank
    }

    /// Leaves a value for all ranks, once it is committed.
    pub(crate) fn put(&self, key: &CStr, bytes: &[u8]) -> Outcome<()> {
        let bytes = Bytes { start: bytes.as_ptr().cast_mut(), len: bytes.len() };
        // SAFETY: zeros are a value of each of its fields.
        let mut data: Data = unsafe { zeroed() };
        data.bytes = bytes;
        let mut value = Value { kind: BYTES, data };
        // SAFETY: it reads the key and the value, and keeps a copy.
        self.functions.check(unsafe { (self.functions.put)(GLOBAL, key.as_ptr(), &mut value) })
    }

    /// Gives what was put to the server.
    pub(crate) fn commit(&self) -> Outcome<()> {
        // SAFETY: it takes nothing.
        self.functions.check(unsafe { (self.functions.commit)() })
    }

    /// Waits until all ranks are here; what they have committed is then known on all hosts. May wait without end.
    pub(crate) fn fence(&self) -> Outcome<()> {
        let all = Proc { rank: ALL_RANKS, ..self.me };
        let collect = Info::flag(COLLECT);
        // SAFETY: it reads one of each.
        self.functions.check(unsafe { (self.functions.fence)(&all, 1, &collect, 1) })
    }

    /// What `rank` has put under that key. For what is not there yet the library waits, for `seconds` if the server
    /// does as it is asked; or it says at once that there is nothing.
    pub(crate) fn get(&self, rank: u32, key: &CStr, seconds: u32) -> Outcome<Option<Vec<u8>>> {
        let whose = Proc { rank, ..self.me };
        let limit = Info::number(TIMEOUT, seconds as c_int);
        let mut found: *mut Value = null_mut();
        // SAFETY: it reads one of each, and writes an address.
        let status = unsafe { (self.functions.get)(&whose, key.as_ptr(), &limit, 1, &mut found) };
        if status == NOT_FOUND {
            return Ok(None);
        }
        self.functions.check(status)?;
        let Some(found) = NonNull::new(found) else { return Err("no value".into()) };
        // SAFETY: a value that is this caller's now.
        unsafe { take(found) }.map(Some)
    }
}

/// The bytes of a value that the library gave away.
///
/// # Safety
/// `value` must be one that the library has allocated, and nobody else's.
unsafe fn take(value: NonNull<Value>) -> Outcome<Vec<u8>> {
    // SAFETY: as the caller promises.
    let Value { kind, data } = unsafe { value.as_ref() };
    if *kind != BYTES {
        // What it holds is unknown, so that it cannot be given back.
        return Err(format!("a value of type {kind}"));
    }
    // SAFETY: the kind says that these are the ones that were written.
    let Bytes { start, len } = unsafe { data.bytes };
    let mut bytes = Vec::with_capacity(len);
    if !start.is_null() {
        // SAFETY: so many bytes lie there; both they and the value were allocated by the C library.
        unsafe {
            bytes.extend_from_slice(slice::from_raw_parts(start, len));
            free(start.cast());
        }
    }
    // SAFETY: see above.
    unsafe { free(value.as_ptr().cast()) };
    Ok(bytes)
}

impl Drop for Client {
    /// Says goodbye: who ends without it has failed, as the launcher sees it.
    fn drop(&mut self) {
        // SAFETY: there is nothing that it should read.
        let _ = unsafe { (self.functions.finalize)(null_mut(), 0) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::mem::offset_of;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// Where Debian's package libpmix-dev has its headers.
    fn headers() -> Option<PathBuf> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let found = folders.map(|folder| folder.path().join("pmix2/include"));
        found.into_iter().find(|folder| folder.join("pmix_common.h").exists())
    }

    #[test]
    fn layouts_and_numbers_are_those_of_the_headers() {
        let Some(headers) = headers() else {
            eprintln!("skipped: no pmix_common.h (Debian package libpmix-dev)");
            return;
        };
        let program = r#"
            #include <stddef.h>
            #include <stdio.h>
            #include <pmix.h>
            int main(void) {
                printf("%zu %zu\n", sizeof(pmix_proc_t), offsetof(pmix_proc_t, rank));
                printf("%zu %zu\n", sizeof(pmix_value_t), offsetof(pmix_value_t, data));
                printf("%zu %zu\n", sizeof(pmix_byte_object_t), offsetof(pmix_byte_object_t, size));
                printf("%zu %zu %zu\n", sizeof(pmix_info_t), offsetof(pmix_info_t, flags), offsetof(pmix_info_t, value));
                printf("%d %d %d %d %u\n", PMIX_GLOBAL, PMIX_BOOL, PMIX_INT, PMIX_BYTE_OBJECT, PMIX_RANK_WILDCARD);
                printf("%s %s %d %d\n", PMIX_COLLECT_DATA, PMIX_TIMEOUT, PMIX_SUCCESS, PMIX_ERR_NOT_FOUND);
                return 0;
            }"#;
        let folder = std::env::temp_dir().join(format!("kolo-pmix-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("layout.c"), program).unwrap();
        let built = Command::new("cc")
            .args(["-o", "layout", "layout.c"])
            .arg(format!("-I{}", headers.display()))
            .current_dir(&folder)
            .output();
        let built = built.expect("a C compiler");
        let ran = Command::new(folder.join("layout")).output();
        fs::remove_dir_all(&folder).unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let ours = [
            format!("{} {}\n", size_of::<Proc>(), offset_of!(Proc, rank)),
            format!("{} {}\n", size_of::<Value>(), offset_of!(Value, data)),
            format!("{} {}\n", size_of::<Bytes>(), offset_of!(Bytes, len)),
            format!("{} {} {}\n", size_of::<Info>(), offset_of!(Info, flags), offset_of!(Info, value)),
            format!("{GLOBAL} {BOOL} {INT} {BYTES} {ALL_RANKS}\n"),
            [COLLECT, TIMEOUT].map(|key| key.to_str().unwrap()).join(" ")
                + &format!(" {SUCCESS} {NOT_FOUND}\n"),
        ];
        assert_eq!(ours.concat(), String::from_utf8(ran.unwrap().stdout).unwrap());
    }

    #[test]
    fn a_library_that_is_not_there_or_not_this_one_is_said() {
        let error = Pmix::load(&["libnowhere.so.2"]).err().unwrap();
        assert!(error.contains("libnowhere.so.2"), "{error}");
        let error = Pmix::load(&["libc.so.6"]).err().unwrap();
        assert!(error.contains("PMIx_Init"), "{error}");
    }
}
