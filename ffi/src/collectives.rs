//! The collectives. All ranks call them, in the same order, with the same arguments where nothing else is said.
//!
//! Counts are in elements. Input and output are apart, unless a function says what is in place.

use std::ffi::c_void;

use crate::comm::{Comm, call, on_comm};
use crate::memory::{Stretch, counts as counted, for_each, rank};
use crate::status::Status;
use crate::types::{DtypeCode, OpCode, operator};

/// output = the reduction of all ranks' input, on every rank: `count` elements.
/// In place: output is input.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_all_reduce(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    op: OpCode,
) -> Status {
    call!("kolo_all_reduce", comm, dtype, |communicator, T| {
        let input = Stretch::<T>::new("input", input, count)?;
        let output = Stretch::<T>::new("output", output, count)?;
        let op = operator(op)?;
        if input.is(&output) {
            return communicator.all_reduce_in_place(output.write(), op);
        }
        input.apart(&output)?;
        communicator.all_reduce(input.read(), output.write(), op)
    })
}

/// output = this rank's block of the reduction of all ranks' input. A block is `count` elements; input has one
/// for each rank. In place: output is this rank's block of input; the other blocks are used up.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_reduce_scatter(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    op: OpCode,
) -> Status {
    call!("kolo_reduce_scatter", comm, dtype, |communicator, T| {
        let input = Stretch::<T>::new("input", input, for_each(count, communicator.size())?)?;
        let output = Stretch::<T>::new("output", output, count)?;
        let op = operator(op)?;
        if output.is_block(&input, communicator.rank()) {
            return communicator.reduce_scatter_in_place(input.write(), op);
        }
        input.apart(&output)?;
        communicator.reduce_scatter(input.read(), output.write(), op)
    })
}

/// Like kolo_reduce_scatter, with a block of counts[r] elements for rank r; never in place.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_reduce_scatter_v(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    counts: *const u64,
    dtype: DtypeCode,
    op: OpCode,
) -> Status {
    call!("kolo_reduce_scatter_v", comm, dtype, |communicator, T| {
        let (counts, all) = counted("counts", counts, communicator.size())?;
        let input = Stretch::<T>::new("input", input, all)?;
        let output = Stretch::<T>::new("output", output, counts[communicator.rank()] as u64)?;
        input.apart(&output)?;
        communicator.reduce_scatter_v(input.read(), output.write(), &counts, operator(op)?)
    })
}

/// output = every rank's input, in the order of ranks. A block is `count` elements; output has one for each
/// rank. In place: input is this rank's block of output.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_all_gather(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
) -> Status {
    call!("kolo_all_gather", comm, dtype, |communicator, T| {
        let input = Stretch::<T>::new("input", input, count)?;
        let output = Stretch::<T>::new("output", output, for_each(count, communicator.size())?)?;
        if input.is_block(&output, communicator.rank()) {
            return communicator.all_gather_in_place(output.write());
        }
        input.apart(&output)?;
        communicator.all_gather(input.read(), output.write())
    })
}

/// Like kolo_all_gather, with a block of counts[r] elements from rank r; never in place.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_all_gather_v(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    counts: *const u64,
    dtype: DtypeCode,
) -> Status {
    call!("kolo_all_gather_v", comm, dtype, |communicator, T| {
        let (counts, all) = counted("counts", counts, communicator.size())?;
        let input = Stretch::<T>::new("input", input, counts[communicator.rank()] as u64)?;
        let output = Stretch::<T>::new("output", output, all)?;
        input.apart(&output)?;
        communicator.all_gather_v(input.read(), output.write(), &counts)
    })
}

/// Every rank's data becomes the root's: `count` elements.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_broadcast(
    comm: *mut Comm,
    data: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    root: i32,
) -> Status {
    call!("kolo_broadcast", comm, dtype, |communicator, T| {
        let data = Stretch::<T>::new("data", data, count)?;
        communicator.broadcast(data.write(), rank("root", root)?)
    })
}

/// The root's output = the reduction of all ranks' input: `count` elements. Elsewhere output is not used and may
/// be null. In place: output is input.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_reduce(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    op: OpCode,
    root: i32,
) -> Status {
    call!("kolo_reduce", comm, dtype, |communicator, T| {
        let root = rank("root", root)?;
        let at_root = communicator.rank() == root;
        let input = Stretch::<T>::new("input", input, count)?;
        let output = Stretch::<T>::new("output", output, if at_root { count } else { 0 })?;
        let op = operator(op)?;
        if input.is(&output) {
            return communicator.reduce_in_place(output.write(), op, root);
        }
        input.apart(&output)?;
        communicator.reduce(input.read(), output.write(), op, root)
    })
}

/// The root's output = every rank's input, in the order of ranks. A block is `count` elements; output has one for
/// each rank. Elsewhere output is not used and may be null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_gather(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    root: i32,
) -> Status {
    call!("kolo_gather", comm, dtype, |communicator, T| {
        let root = rank("root", root)?;
        let ranks = if communicator.rank() == root { communicator.size() } else { 0 };
        let input = Stretch::<T>::new("input", input, count)?;
        let output = Stretch::<T>::new("output", output, for_each(count, ranks)?)?;
        input.apart(&output)?;
        communicator.gather(input.read(), output.write(), root)
    })
}

/// Like kolo_gather, with `count` elements from this rank and counts[r] from rank r. Elsewhere than at the root
/// neither output nor counts are used, and both may be null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_gather_v(
    comm: *mut Comm,
    input: *const c_void,
    count: u64,
    output: *mut c_void,
    counts: *const u64,
    dtype: DtypeCode,
    root: i32,
) -> Status {
    call!("kolo_gather_v", comm, dtype, |communicator, T| {
        let root = rank("root", root)?;
        let (counts, all) = match communicator.rank() == root {
            true => counted("counts", counts, communicator.size())?,
            false => (Vec::new(), 0),
        };
        let input = Stretch::<T>::new("input", input, count)?;
        let output = Stretch::<T>::new("output", output, all)?;
        input.apart(&output)?;
        communicator.gather_v(input.read(), output.write(), &counts, root)
    })
}

/// Each rank's output = its block of the root's input. A block is `count` elements; input has one for each rank.
/// Elsewhere input is not used and may be null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_scatter(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    root: i32,
) -> Status {
    call!("kolo_scatter", comm, dtype, |communicator, T| {
        let root = rank("root", root)?;
        let ranks = if communicator.rank() == root { communicator.size() } else { 0 };
        let input = Stretch::<T>::new("input", input, for_each(count, ranks)?)?;
        let output = Stretch::<T>::new("output", output, count)?;
        input.apart(&output)?;
        communicator.scatter(input.read(), output.write(), root)
    })
}

/// Like kolo_scatter, with `count` elements for this rank and counts[r] for rank r. Elsewhere than at the root
/// neither input nor counts are used, and both may be null.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_scatter_v(
    comm: *mut Comm,
    input: *const c_void,
    counts: *const u64,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    root: i32,
) -> Status {
    call!("kolo_scatter_v", comm, dtype, |communicator, T| {
        let root = rank("root", root)?;
        let (counts, all) = match communicator.rank() == root {
            true => counted("counts", counts, communicator.size())?,
            false => (Vec::new(), 0),
        };
        let input = Stretch::<T>::new("input", input, all)?;
        let output = Stretch::<T>::new("output", output, count)?;
        input.apart(&output)?;
        communicator.scatter_v(input.read(), &counts, output.write(), root)
    })
}

/// Block b of rank r's output = block r of rank b's input. A block is `count` elements; both have one for each
/// rank.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_all_to_all(
    comm: *mut Comm,
    input: *const c_void,
    output: *mut c_void,
    count: u64,
    dtype: DtypeCode,
) -> Status {
    call!("kolo_all_to_all", comm, dtype, |communicator, T| {
        let all = for_each(count, communicator.size())?;
        let input = Stretch::<T>::new("input", input, all)?;
        let output = Stretch::<T>::new("output", output, all)?;
        input.apart(&output)?;
        communicator.all_to_all(input.read(), output.write())
    })
}

/// Like kolo_all_to_all, with send_counts[r] elements for rank r and recv_counts[r] from it.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; the memory is there, and nobody else touches it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_all_to_all_v(
    comm: *mut Comm,
    input: *const c_void,
    send_counts: *const u64,
    output: *mut c_void,
    recv_counts: *const u64,
    dtype: DtypeCode,
) -> Status {
    call!("kolo_all_to_all_v", comm, dtype, |communicator, T| {
        let (send_counts, sent) = counted("send_counts", send_counts, communicator.size())?;
        let (recv_counts, received) = counted("recv_counts", recv_counts, communicator.size())?;
        let input = Stretch::<T>::new("input", input, sent)?;
        let output = Stretch::<T>::new("output", output, received)?;
        input.apart(&output)?;
        communicator.all_to_all_v(input.read(), &send_counts, output.write(), &recv_counts)
    })
}

/// Returns when all ranks have called it.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_barrier(comm: *mut Comm) -> Status {
    // SAFETY: the caller's promise.
    unsafe { on_comm("kolo_barrier", comm, |inner| inner.communicator.barrier()) }
}
