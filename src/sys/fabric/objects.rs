//! The objects of an endpoint: everything that one needs to send and to receive.

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::layout::{
    AvAttr, Context, CqAttr, CqErrEntry, CqMsgEntry, FI_AV_MAP, FI_CQ_FORMAT_MSG, FI_EAGAIN, FI_EAVAIL,
    FI_ENABLE, FI_GETWAIT, FI_RECV, FI_SEND, FI_WAIT_FD, FI_WAIT_NONE, Fid, FidAv, FidCq, FidDomain, FidEp,
    FidFabric, FidMr, Stretch,
};
use super::library::{Fault, Info, Libfabric};

/// The longest address that a provider may give an endpoint.
const LONGEST_ADDRESS: usize = 512;
/// How many completions are read at once.
const BATCH: usize = 16;

/// An object of libfabric's, closed when it is dropped. Each begins with a [`Fid`].
struct Object<T>(NonNull<T>);

impl<T> Object<T> {
    /// What a function opens that returns 0, or what is wrong, negated.
    fn open(open: impl FnOnce(*mut *mut T) -> c_int) -> Result<Self, Fault> {
        let mut raw = ptr::null_mut();
        check(open(&mut raw))?;
        NonNull::new(raw).map(Self).ok_or(Fault(FI_EAVAIL))
    }

    fn raw(&self) -> *mut T {
        self.0.as_ptr()
    }

    fn fid(&self) -> *mut Fid {
        self.raw().cast()
    }

    fn control(&self, command: c_int, argument: *mut c_void) -> Result<(), Fault> {
        // SAFETY: the object is open; whoever calls knows what the command takes.
        check(unsafe { ((*(*self.fid()).ops).control)(self.fid(), command, argument) })
    }

    fn bind<U>(&self, to: &Object<U>, flags: u64) -> Result<(), Fault> {
        // SAFETY: both are open, and `Port` closes this one first.
        check(unsafe { ((*(*self.fid()).ops).bind)(self.fid(), to.fid(), flags) })
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody else closes it. What is wrong, nobody can mend.
        let _ = unsafe { ((*(*self.fid()).ops).close)(self.fid()) };
    }
}

fn check(outcome: c_int) -> Result<(), Fault> {
    if outcome == 0 { Ok(()) } else { Err(Fault(-outcome)) }
}

/// The outcome of an operation that may have to be tried again: false where it must.
fn begun(outcome: isize) -> Result<bool, Fault> {
    match outcome {
        0 => Ok(true),
        outcome if -outcome == FI_EAGAIN as isize => Ok(false),
        outcome => Err(Fault(-outcome as i32)),
    }
}

/// What came of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The context that it was begun with.
    pub(crate) context: *mut Context,
    /// Of a message that was received.
    pub(crate) len: usize,
    /// What went wrong, if anything did.
    pub(crate) fault: Option<Fault>,
}

/// The domain that memory is registered with.
struct Domain {
    domain: Object<FidDomain>,
    fabric: Object<FidFabric>,
}

/// An endpoint with all that belongs to it. Fields are closed in this order.
pub(crate) struct Port {
    endpoint: Object<FidEp>,
    queue: Object<FidCq>,
    addresses: Object<FidAv>,
    domain: Arc<Domain>,
    /// What the queue makes readable, where the provider has that.
    descriptor: Option<RawFd>,
    registers: bool,
    library: Arc<Libfabric>,
}

/// Memory that the provider may read and write.
pub(crate) struct Registration {
    region: Object<FidMr>,
    /// Closed after the region.
    _domain: Arc<Domain>,
}

// SAFETY: the objects of one domain are used by one thread at a time, whichever: that is FI_THREAD_DOMAIN. Whoever has a
// port keeps it, and what is registered there, under one lock.
unsafe impl Send for Port {}
// SAFETY: as above.
unsafe impl Send for Registration {}
// SAFETY: as above; it is shared by the port and what is registered there.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Port {
    /// Opens what is offered.
    pub(crate) fn open(info: &Info) -> Result<Self, Fault> {
        let library = info.library.clone();
        let raw = info.raw.as_ptr();
        let context = ptr::null_mut();
        // SAFETY: the library's own structures, which are open or were just made; all that it returns is checked.
        unsafe {
            let fabric = Object::open(|new| (library.fabric)((*raw).fabric_attr, new, context))?;
            let ops: *const _ = (*fabric.raw()).ops;
            let domain = Object::open(|new| ((*ops).domain)(fabric.raw(), raw, new, context))?;
            let domain = Arc::new(Domain { domain, fabric });
            let (queue, descriptor) = open_queue(&domain.domain)?;
            let ops: *const _ = (*domain.domain.raw()).ops;
            let mut attributes = AvAttr { r#type: FI_AV_MAP, ..zeroed() };
            let addresses =
                Object::open(|new| ((*ops).av_open)(domain.domain.raw(), &mut attributes, new, context))?;
            let endpoint =
                Object::<FidEp>::open(|new| ((*ops).endpoint)(domain.domain.raw(), raw, new, context))?;
            endpoint.bind(&addresses, 0)?;
            endpoint.bind(&queue, FI_SEND | FI_RECV)?;
            endpoint.control(FI_ENABLE, ptr::null_mut())?;
            Ok(Self { endpoint, queue, addresses, domain, descriptor, registers: info.registers(), library })
        }
    }

    /// The library that it is of.
    pub(crate) fn library(&self) -> &Arc<Libfabric> {
        &self.library
    }

    /// This endpoint's address, which peers insert.
    pub(crate) fn address(&self) -> Result<Vec<u8>, Fault> {
        let mut address = vec![0; LONGEST_ADDRESS];
        let mut len = address.len();
        // SAFETY: the endpoint is open; it may write as many bytes as it is told, and says how many there are.
        check(unsafe {
            let ops = (*self.endpoint.raw()).cm;
            ((*ops).getname)(self.endpoint.fid(), address.as_mut_ptr().cast(), &mut len)
        })?;
        address.truncate(len);
        Ok(address)
    }

    /// What messages to that address are sent to.
    pub(crate) fn insert(&self, address: &[u8]) -> Result<u64, Fault> {
        // Providers read as many bytes as their addresses have, not as many as came.
        let mut padded = vec![0; address.len().max(LONGEST_ADDRESS)];
        padded[..address.len()].copy_from_slice(address);
        let mut peer = 0;
        // SAFETY: one address, and room for one number.
        let inserted = unsafe {
            let ops = (*self.addresses.raw()).ops;
            let none = ptr::null_mut();
            ((*ops).insert)(self.addresses.raw(), padded.as_ptr().cast(), 1, &mut peer, 0, none)
        };
        match inserted {
            1 => Ok(peer),
            0 => Err(Fault(FI_EAVAIL)),
            fault => Err(Fault(-fault)),
        }
    }

    /// Lets the provider read and write memory, if it must be told of it.
    ///
    /// # Safety
    /// The memory must be valid until the registration is dropped.
    pub(crate) unsafe fn register(&self, start: *mut u8, len: usize) -> Result<Option<Registration>, Fault> {
        if !self.registers || len == 0 {
            return Ok(None);
        }
        let domain = self.domain.domain.raw();
        // SAFETY: the domain is open, the memory valid, as the caller promises.
        let region = Object::open(|new| unsafe {
            let (reg, fid) = ((*(*domain).mr).reg, self.domain.domain.fid());
            reg(fid, start.cast(), len, FI_SEND | FI_RECV, 0, 0, 0, new, ptr::null_mut())
        })?;
        Ok(Some(Registration { region, _domain: self.domain.clone() }))
    }

    /// Begins to send these stretches of memory as one message; false where it must be tried again.
    ///
    /// # Safety
    /// The memory, its registrations and the context must be valid until the completion, and as they are. There must be
    /// no more stretches than [`Info::stretches`] says.
    pub(crate) unsafe fn send(
        &self,
        stretches: &[(*mut u8, usize, Option<&Registration>)],
        to: u64,
        tag: u64,
        context: *mut Context,
    ) -> Result<bool, Fault> {
        let (endpoint, context) = (self.endpoint.raw(), context.cast());
        // SAFETY: the endpoint is open; the rest is as the caller promises.
        begun(unsafe {
            let ops = (*endpoint).tagged;
            match *stretches {
                [(start, len, registration)] => {
                    ((*ops).send)(endpoint, start.cast(), len, describe(registration), to, tag, context)
                }
                _ => {
                    let stretch = |(start, len, _): &(*mut u8, usize, _)| Stretch {
                        iov_base: start.cast(),
                        iov_len: *len,
                    };
                    let vector: Vec<Stretch> = stretches.iter().map(stretch).collect();
                    let mut described: Vec<_> =
                        stretches.iter().map(|(.., registration)| describe(*registration)).collect();
                    let (vector, described) = (vector.as_ptr(), described.as_mut_ptr());
                    ((*ops).sendv)(endpoint, vector, described, stretches.len(), to, tag, context)
                }
            }
        })
    }

    /// Sends a message of at most [`Info::injects`] bytes, which may be written again at once, and of which no completion
    /// tells; false where it must be tried again.
    ///
    /// # Safety
    /// The memory must be valid.
    pub(crate) unsafe fn inject(
        &self,
        (start, len): (*mut u8, usize),
        to: u64,
        tag: u64,
    ) -> Result<bool, Fault> {
        let endpoint = self.endpoint.raw();
        // SAFETY: the endpoint is open; the rest is as the caller promises.
        begun(unsafe { ((*(*endpoint).tagged).inject)(endpoint, start.cast(), len, to, tag) })
    }

    /// Begins to receive the next message of that tag; false where it must be tried again.
    ///
    /// # Safety
    /// The memory, its registration and the context must be valid until the completion, and nobody may look at the memory.
    pub(crate) unsafe fn receive(
        &self,
        (start, len): (*mut u8, usize),
        registration: Option<&Registration>,
        tag: u64,
        context: *mut Context,
    ) -> Result<bool, Fault> {
        const ANYBODY: u64 = u64::MAX;
        let endpoint = self.endpoint.raw();
        // SAFETY: the endpoint is open; the rest is as the caller promises.
        begun(unsafe {
            let receive = (*(*endpoint).tagged).recv;
            receive(endpoint, start.cast(), len, describe(registration), ANYBODY, tag, 0, context.cast())
        })
    }

    /// Gives an operation up, if it has not begun; its completion comes in any case.
    pub(crate) fn cancel(&self, context: *mut Context) {
        let endpoint = self.endpoint.raw();
        // SAFETY: the endpoint is open; a context that it does not know is no context to it.
        let _ = unsafe { ((*(*endpoint).ops).cancel)(self.endpoint.fid(), context.cast()) };
    }

    /// Has the provider go on with all that was begun, and tells what came of some of it.
    #[inline]
    pub(crate) fn progress(&self, mut each: impl FnMut(Completion)) -> Result<usize, Fault> {
        let mut entries = [const { MaybeUninit::<CqMsgEntry>::uninit() }; BATCH];
        let queue = self.queue.raw();
        // SAFETY: the queue is open, and there is room for so many entries.
        let count = unsafe { ((*(*queue).ops).read)(queue, entries.as_mut_ptr().cast(), BATCH) };
        match count {
            0.. => {
                for entry in &entries[..count as usize] {
                    // SAFETY: so many were written.
                    let entry = unsafe { entry.assume_init_ref() };
                    each(Completion { context: entry.op_context.cast(), len: entry.len, fault: None });
                }
                Ok(count as usize)
            }
            count if -count == FI_EAGAIN as isize => Ok(0),
            count if -count == FI_EAVAIL as isize => self.failed(each),
            count => Err(Fault(-count as i32)),
        }
    }

    /// Tells what went wrong with an operation.
    #[cold]
    fn failed(&self, mut each: impl FnMut(Completion)) -> Result<usize, Fault> {
        let queue = self.queue.raw();
        // SAFETY: zeros are such a structure; the queue is open, and writes one.
        let (entry, count) = unsafe {
            let mut entry: CqErrEntry = zeroed();
            let count = ((*(*queue).ops).readerr)(queue, &mut entry, 0);
            (entry, count)
        };
        match count {
            1.. => {
                let fault = Some(Fault(entry.err));
                each(Completion { context: entry.op_context.cast(), len: entry.len, fault });
                Ok(1)
            }
            0 => Ok(0),
            count if -count == FI_EAGAIN as isize => Ok(0),
            count => Err(Fault(-count as i32)),
        }
    }

    /// What wakes who sleeps for completions, where the provider has it and nothing is left to be done first.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        let descriptor = self.descriptor?;
        let fabric = self.domain.fabric.raw();
        let mut fids = [self.queue.fid()];
        // SAFETY: both are open.
        let ready = unsafe { ((*(*fabric).ops).trywait)(fabric, fids.as_mut_ptr(), 1) };
        (ready == 0).then_some(descriptor)
    }

    /// Whether the provider ever has such a descriptor.
    pub(crate) fn has_descriptor(&self) -> bool {
        self.descriptor.is_some()
    }
}

/// A completion queue with a descriptor to sleep on, if the provider has those; else one without.
fn open_queue(domain: &Object<FidDomain>) -> Result<(Object<FidCq>, Option<RawFd>), Fault> {
    let open = |wait_obj| {
        // SAFETY: zeros are such a structure; the domain is open.
        unsafe {
            let mut attributes = CqAttr { format: FI_CQ_FORMAT_MSG, wait_obj, ..zeroed() };
            let cq_open = (*(*domain.raw()).ops).cq_open;
            Object::open(|new| cq_open(domain.raw(), &mut attributes, new, ptr::null_mut()))
        }
    };
    if let Ok(queue) = open(FI_WAIT_FD) {
        let mut descriptor: c_int = -1;
        if queue.control(FI_GETWAIT, ptr::from_mut(&mut descriptor).cast()).is_ok() && descriptor >= 0 {
            return Ok((queue, Some(descriptor)));
        }
    }
    Ok((open(FI_WAIT_NONE)?, None))
}

fn describe(registration: Option<&Registration>) -> *mut c_void {
    // SAFETY: the region is open.
    registration.map_or(ptr::null_mut(), |registration| unsafe { (*registration.region.raw()).mem_desc })
}

/// What can be asked of a fault.
impl Fault {
    /// Whether an operation was given up.
    pub(crate) fn is_canceled(self) -> bool {
        const ECANCELED: i32 = 125;
        self.0 == ECANCELED
    }
}
