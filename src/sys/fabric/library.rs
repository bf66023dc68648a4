//! The library itself: loading it, and asking what it offers.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::mem::transmute;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::layout::{
    EpAttr, FI_CONTEXT, FI_CONTEXT2, FI_EP_RDM, FI_ORDER_SAS, FI_PROGRESS_MANUAL, FI_SOCKADDR,
    FI_SOCKADDR_IB, FI_SOURCE, FI_TAGGED, FI_THREAD_DOMAIN, FabricAttr, FidFabric, Info as Raw, VERSION,
    mode, version,
};
use crate::sys::library::Library;

/// The version of the interface that [`layout`](super::layout) describes.
const ABI: &CStr = c"FABRIC_1.3";

const ENOMEM: i32 = 12;

type GetInfo =
    unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const Raw, *mut *mut Raw) -> c_int;
type FreeInfo = unsafe extern "C" fn(*mut Raw);
type DupInfo = unsafe extern "C" fn(*const Raw) -> *mut Raw;
type OpenFabric = unsafe extern "C" fn(*mut FabricAttr, *mut *mut FidFabric, *mut std::ffi::c_void) -> c_int;
type StrError = unsafe extern "C" fn(c_int) -> *const c_char;
type GetVersion = unsafe extern "C" fn() -> u32;

/// libfabric, loaded.
pub(crate) struct Libfabric {
    version: u32,
    getinfo: GetInfo,
    freeinfo: FreeInfo,
    dupinfo: DupInfo,
    pub(super) fabric: OpenFabric,
    strerror: StrError,
}

/// What libfabric says is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(super) i32);

/// What is asked of an endpoint, besides reliable tagged messages in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The address of this host that it is to have.
    pub(crate) source: Option<&'a str>,
}

impl fmt::Debug for Libfabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libfabric").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Libfabric {
    /// Loads the library at `path`, or the system's.
    pub(crate) fn load(path: Option<&Path>) -> Result<Arc<Self>, String> {
        let library = Library::open(&[path.unwrap_or(Path::new("libfabric.so.1"))])?;
        let find = |name: &CStr, version: &CStr| library.versioned(name, version).map(NonNull::as_ptr);
        // SAFETY: the functions of that name and version have these types: see `layout`, and fi_errno.h.
        unsafe {
            let get_version = transmute::<*mut _, GetVersion>(find(c"fi_version", c"FABRIC_1.0")?);
            Ok(Arc::new(Self {
                version: get_version(),
                getinfo: transmute::<*mut _, GetInfo>(find(c"fi_getinfo", ABI)?),
                freeinfo: transmute::<*mut _, FreeInfo>(find(c"fi_freeinfo", ABI)?),
                dupinfo: transmute::<*mut _, DupInfo>(find(c"fi_dupinfo", ABI)?),
                fabric: transmute::<*mut _, OpenFabric>(find(c"fi_fabric", c"FABRIC_1.1")?),
                strerror: transmute::<*mut _, StrError>(find(c"fi_strerror", c"FABRIC_1.0")?),
            }))
        }
    }

    /// Its version, such as 1.17.
    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version >> 16, self.version & 0xffff)
    }

    /// What a fault means.
    pub(crate) fn text(&self, Fault(code): Fault) -> String {
        // SAFETY: it takes any number, and returns text that lasts.
        let text = unsafe { (self.strerror)(code) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: see above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// What providers offer, the best first.
    pub(crate) fn offers(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Vec<Info>, Fault> {
        let source = wanted.source.map(|source| CString::new(source).unwrap_or_default());
        let (node, flags) = match &source {
            Some(source) => (source.as_ptr(), FI_SOURCE),
            None => (ptr::null(), 0),
        };
        let hints = self.hints()?;
        let mut first = ptr::null_mut();
        // Older libraries do not know the version that is described here, newer ones do.
        let version = VERSION.min(self.version).max(version(1, 0));
        // SAFETY: texts that end with a zero, hints of the library's own, and a local to be written.
        let outcome =
            unsafe { (self.getinfo)(version, node, ptr::null(), flags, hints.raw.as_ptr(), &mut first) };
        match outcome {
            0 => {}
            fault => return Err(Fault(-fault)),
        }
        let mut offers = Vec::new();
        while let Some(raw) = NonNull::new(first) {
            // SAFETY: a list that was handed over; each is taken out of it, and freed by itself.
            first = unsafe { std::mem::replace(&mut (*raw.as_ptr()).next, ptr::null_mut()) };
            offers.push(Info { raw, library: self.clone() });
        }
        Ok(offers)
    }

    /// What is asked for.
    fn hints(self: &Arc<Self>) -> Result<Info, Fault> {
        // SAFETY: it takes null for a new one, all zeros but for the structures that it points to.
        let raw = NonNull::new(unsafe { (self.dupinfo)(ptr::null()) }).ok_or(Fault(ENOMEM))?;
        let hints = Info { raw, library: self.clone() };
        // SAFETY: a new one has all of these structures, and is this function's.
        unsafe {
            let info = &mut *raw.as_ptr();
            info.caps = FI_TAGGED;
            info.mode = FI_CONTEXT | FI_CONTEXT2;
            (*info.ep_attr).r#type = FI_EP_RDM;
            (*info.tx_attr).msg_order = FI_ORDER_SAS;
            (*info.rx_attr).msg_order = FI_ORDER_SAS;
            let domain = &mut *info.domain_attr;
            (domain.control_progress, domain.data_progress) = (FI_PROGRESS_MANUAL, FI_PROGRESS_MANUAL);
            domain.threading = FI_THREAD_DOMAIN;
            domain.mr_mode = mode::LOCAL | mode::OF_REMOTE_ACCESS;
        }
        Ok(hints)
    }
}

/// What a provider offers.
pub(crate) struct Info {
    pub(super) raw: NonNull<Raw>,
    pub(super) library: Arc<Libfabric>,
}

// SAFETY: memory of the library's that nobody else knows.
unsafe impl Send for Info {}

impl Info {
    fn raw(&self) -> &Raw {
        // SAFETY: the library's, valid until it is freed.
        unsafe { self.raw.as_ref() }
    }

    /// The provider's name: `tcp;ofi_rxm`.
    pub(crate) fn provider(&self) -> String {
        text(self.raw(), |fabric| fabric.prov_name)
    }

    /// The name of what it would use: an interface, a device.
    pub(crate) fn domain(&self) -> String {
        // SAFETY: as in `raw`; null or text that ends with a zero.
        unsafe { self.raw().domain_attr.as_ref().map_or_else(String::new, |domain| owned(domain.name)) }
    }

    /// Whether its addresses are those of hosts, so that one of this host's means something to it.
    pub(crate) fn has_host_addresses(&self) -> bool {
        (FI_SOCKADDR..=FI_SOCKADDR_IB).contains(&self.raw().addr_format)
    }

    /// Whether memory must be registered before it is sent from or received to.
    pub(crate) fn registers(&self) -> bool {
        // SAFETY: as in `raw`.
        unsafe { self.raw().domain_attr.as_ref().is_some_and(|domain| domain.mr_mode & mode::LOCAL != 0) }
    }

    fn endpoint<R>(&self, read: impl Fn(&EpAttr) -> R) -> Option<R> {
        // SAFETY: as in `raw`.
        unsafe { self.raw().ep_attr.as_ref().map(read) }
    }

    /// The bits of a tag that it looks at.
    pub(crate) fn tag_bits(&self) -> u32 {
        // The format marks fields by alternating bits; the uppermost one that is set begins the first.
        match self.endpoint(|attributes| attributes.mem_tag_format) {
            None | Some(0) => u64::BITS,
            Some(format) => u64::BITS - format.leading_zeros(),
        }
    }

    /// The most bytes of a message.
    pub(crate) fn longest(&self) -> usize {
        self.endpoint(|attributes| attributes.max_msg_size).unwrap_or(0)
    }

    /// The most bytes of a message that may be injected.
    pub(crate) fn injects(&self) -> usize {
        // SAFETY: as in `raw`.
        unsafe { self.raw().tx_attr.as_ref().map_or(0, |transmit| transmit.inject_size) }
    }

    /// Of how many stretches of memory a message may be made.
    pub(crate) fn stretches(&self) -> usize {
        // SAFETY: as in `raw`.
        unsafe { self.raw().tx_attr.as_ref().map_or(1, |transmit| transmit.iov_limit.max(1)) }
    }
}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: it came from this library, and nobody else knows it.
        unsafe { (self.library.freeinfo)(self.raw.as_ptr()) };
    }
}

fn text(info: &Raw, name: impl Fn(&FabricAttr) -> *mut c_char) -> String {
    // SAFETY: null or the library's; its texts end with a zero.
    unsafe { info.fabric_attr.as_ref().map_or_else(String::new, |fabric| owned(name(fabric))) }
}

/// # Safety
/// Null, or text that ends with a zero.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
