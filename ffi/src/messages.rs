//! Messages between two ranks.

use std::ffi::c_void;

use crate::comm::{Comm, call};
use crate::memory::{Stretch, rank};
use crate::status::Status;
use crate::types::DtypeCode;

/// Sends `count` elements to rank `to`, which receives as many of the same type. May wait until it does.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `data` holds the elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_send(
    comm: *mut Comm,
    data: *const c_void,
    count: u64,
    dtype: DtypeCode,
    to: i32,
) -> Status {
    call!("kolo_send", comm, dtype, |communicator, T| {
        let data = Stretch::<T>::new("data", data, count)?;
        communicator.send(data.read(), rank("to", to)?)
    })
}

/// Receives `count` elements from rank `from`, which sends as many of the same type.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `data` has room for the elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_recv(
    comm: *mut Comm,
    data: *mut c_void,
    count: u64,
    dtype: DtypeCode,
    from: i32,
) -> Status {
    call!("kolo_recv", comm, dtype, |communicator, T| {
        let data = Stretch::<T>::new("data", data, count)?;
        communicator.recv(data.write(), rank("from", from)?)
    })
}

/// Sends `count` elements to rank `to` and receives `into_count` from rank `from`, at once, so that neighbours
/// which exchange cannot block each other. `data` and `into` are apart.
///
/// # Safety
/// `comm` is null or a communicator that no other thread uses; `data` holds the elements, `into` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kolo_send_recv(
    comm: *mut Comm,
    data: *const c_void,
    count: u64,
    to: i32,
    into: *mut c_void,
    into_count: u64,
    from: i32,
    dtype: DtypeCode,
) -> Status {
    call!("kolo_send_recv", comm, dtype, |communicator, T| {
        let data = Stretch::<T>::new("data", data, count)?;
        let into = Stretch::<T>::new("into", into, into_count)?;
        data.apart(&into)?;
        communicator.send_recv(data.read(), rank("to", to)?, into.write(), rank("from", from)?)
    })
}
