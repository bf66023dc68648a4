//! Communicators: from the cradle to the grave.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;

use kolo_core::{Abort, Buffer, Communicator, Error, Result};

use crate::status::{Status, guard};

/// A group of ranks that call collectives together, in the same order. Used by one thread at a time;
/// kolo_abort alone may be called by any.
pub struct Comm {
    inner: Inner,
    /// Apart from the rest, since another thread may use it meanwhile.
    abort: Abort,
}

/// What one thread at a time uses.
pub(crate) struct Inner {
    pub(crate) communicator: Communicator,
    /// By address.
    allocations: HashMap<usize, Buffer<u8>>,
}

impl Comm {
    pub(crate) fn boxed(communicator: Communicator) -> *mut Self {
        let abort = communicator.abort_handle();
        let inner = Inner { communicator, allocations: HashMap::new() };
        Box::into_raw(Box::new(Self { inner, abort }))
    }
}

/// Runs a call on a communicator. After a panic the communicator is aborted: its state is unknown.
///
/// # Safety
/// `comm` is null, or came from this library, was not finalized, and no other thread uses it, but for
/// kolo_abort.
pub(crate) unsafe fn on_comm(
    name: &str,
    comm: *mut Comm,
    call: impl FnOnce(&mut Inner) -> Result<()>,
) -> Status {
    let status = guard(name, || {
        let comm = some(comm)?.as_ptr();
        // SAFETY: the caller's promise; only this field is borrowed.
        call(unsafe { &mut (*comm).inner })
    });
    if status == Status::KOLO_INTERNAL && !comm.is_null() {
        // SAFETY: as above.
        unsafe { &(*comm).abort }.abort();
    }
    status
}

/// A call on elements of a type known by its code: its body runs with `$T` as the type.
macro_rules! call {
    ($name:expr, $comm:expr, $dtype:expr, |$communicator:ident, $T:ident| $body:block) => {
        // SAFETY: the exported function's caller promises what its Safety section says: the handle is in no
        // other hands, and memory is there and left alone until the call returns.
        unsafe {
            $crate::comm::on_comm($name, $comm, |inner| {
                let $communicator = &mut inner.communicator;
                $crate::types::with_element!($dtype, $T => $body)
            })
        }
    };
}
pub(crate) use call;

fn some(comm: *mut Comm) -> Result<NonNull<Comm>> {
    NonNull::new(comm).ok_or_else(|| {
        Error::usage("comm is null: it comes from kolo_init, kolo_split, kolo_shrink or kolo_grow")
    })
}

/// Where a result is to be stored.
fn out<T>(what: &str, place: *mut T) -> Result<NonNull<T>> {
    NonNull::new(place).ok_or_else(|| Error::usage(format!("{what} is null: there the result is stored")))
}

/// Joins the job that a launcher offers in the environment (kolo run, Open MPI's mpirun, PMI, or KOLO_RANK,
/// KOLO_SIZE and KOLO_RENDEZVOUS by hand); without one, a job of one rank. Stores the communicator of all its
/// ranks in *comm. With KOLO_JOIN=1 this process is a newcomer: it waits until the job calls kolo_grow.
///
/// # Safety
/// `comm` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_init(comm: *mut *mut Comm) -> Status {
    guard("kolo_init", || {
        let place = out("comm", comm)?;
        let communicator = Communicator::from_env()?;
        // SAFETY: the caller's promise.
        unsafe { place.write(Comm::boxed(communicator)) };
        Ok(())
    })
}

/// Ends a communicator and frees it with the memory of its kolo_alloc. Null is fine.
///
/// # Safety
/// `comm` is null, or came from kolo_init, kolo_split, kolo_shrink or kolo_grow, was not finalized, and no other thread
/// uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_finalize(comm: *mut Comm) -> Status {
    guard("kolo_finalize", || {
        if !comm.is_null() {
            // SAFETY: it came from `Comm::boxed`, and the caller gives it up.
            drop(unsafe { Box::from_raw(comm) });
        }
        Ok(())
    })
}

/// This rank, from 0; -1 where comm is null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_rank(comm: *const Comm) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { number("kolo_rank", comm, |communicator| communicator.rank()) }
}

/// How many ranks there are; -1 where comm is null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_size(comm: *const Comm) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { number("kolo_size", comm, |communicator| communicator.size()) }
}

/// How often the job had grown when this communicator's ranks met: 0 for those that started together; -1 where comm is
/// null. A newcomer sees by it that the others have to tell it how far they are.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_generation(comm: *const Comm) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { number("kolo_generation", comm, |communicator| communicator.generation() as usize) }
}

/// # Safety
/// That of [`on_comm`].
unsafe fn number(name: &str, comm: *const Comm, get: impl FnOnce(&Communicator) -> usize) -> i32 {
    let mut number = -1;
    let call = |inner: &mut Inner| {
        number = i32::try_from(get(&inner.communicator)).unwrap_or(i32::MAX);
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { on_comm(name, comm.cast_mut(), call) };
    number
}

/// Ranks that pass the same color (0 or more) form a new communicator, ordered by key and then by rank, which
/// is stored in *part; a rank that passes a negative color joins none, and gets null. All ranks call it.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `part` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_split(comm: *mut Comm, color: i32, key: u64, part: *mut *mut Comm) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        on_comm("kolo_split", comm, |inner| {
            let place = out("part", part)?;
            let key = usize::try_from(key).map_err(|_| Error::usage(format!("key {key} is too large")))?;
            let split = inner.communicator.split(u32::try_from(color).ok(), key)?;
            place.write(split.map_or(std::ptr::null_mut(), Comm::boxed));
            Ok(())
        })
    }
}

/// Stores a communicator of those ranks that are left of this one in *left: after KOLO_PEER_LOST the way to go on.
/// All that are left call it; this communicator is failed from then on, and still to be finalized. KOLO_DEADLINE names
/// ranks that live and have not called it.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `left` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_shrink(comm: *mut Comm, left: *mut *mut Comm) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        on_comm("kolo_shrink", comm, |inner| {
            let place = out("left", left)?;
            place.write(Comm::boxed(inner.communicator.shrink()?));
            Ok(())
        })
    }
}

/// Stores a communicator of these ranks and so many newcomers in *grown: processes whose kolo_init waits with KOLO_JOIN=1
/// where KOLO_RENDEZVOUS says. All ranks call it. They keep their order and come first. All get one, or none does and
/// this communicator is as it was: KOLO_DEADLINE says that too few came, KOLO_PEER_LOST that somebody left meanwhile.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `grown` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_grow(comm: *mut Comm, newcomers: i32, grown: *mut *mut Comm) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        on_comm("kolo_grow", comm, |inner| {
            let place = out("grown", grown)?;
            let text = format!("{newcomers} newcomers: expected 1 or more");
            let newcomers = usize::try_from(newcomers).map_err(|_| Error::usage(text))?;
            place.write(Comm::boxed(inner.communicator.grow(newcomers)?));
            Ok(())
        })
    }
}

/// Aborts from any thread: calls on this rank, blocked or to come, return KOLO_ABORTED; the other ranks learn
/// that this one has left.
///
/// # Safety
/// `comm` is null or a communicator that is not finalized meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_abort(comm: *const Comm) -> Status {
    guard("kolo_abort", || {
        let comm = some(comm.cast_mut())?.as_ptr();
        // SAFETY: the caller's promise; only this field is borrowed, which all threads may use.
        unsafe { &(*comm).abort }.abort();
        Ok(())
    })
}

/// Zeroed memory for `bytes` bytes, aligned to 64, which collectives on this communicator move best: two processes
/// of a host that reduce it in place, whole or from any address in it on, work in each other's without a copy.
/// Stores its address in *memory. All ranks call it, with the same number of bytes.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `memory` is null or a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_alloc(comm: *mut Comm, bytes: u64, memory: *mut *mut c_void) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        on_comm("kolo_alloc", comm, |inner| {
            let place = out("memory", memory)?;
            if bytes == 0 {
                return Err(Error::usage("0 bytes cannot be allocated"));
            }
            let size = usize::try_from(bytes).unwrap_or(usize::MAX);
            let mut buffer = inner.communicator.alloc::<u8>(size)?;
            let start = buffer.as_mut_ptr();
            place.write(start.cast());
            inner.allocations.insert(start.addr(), buffer);
            Ok(())
        })
    }
}

/// Frees memory of kolo_alloc. Null is fine.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; nobody uses the memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_free(comm: *mut Comm, memory: *mut c_void) -> Status {
    // SAFETY: the caller's promise.
    unsafe {
        on_comm("kolo_free", comm, |inner| {
            if memory.is_null() {
                return Ok(());
            }
            let text = "memory is not from this communicator's kolo_alloc, or was freed before";
            let freed = inner.allocations.remove(&memory.addr());
            freed.map(drop).ok_or_else(|| Error::usage(text))
        })
    }
}
