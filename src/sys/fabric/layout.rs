//! What libfabric's structures look like: of each as much as is used here, from its beginning. Fields bear the names that
//! the headers give them.

#![allow(clippy::struct_field_names)]

use std::ffi::{c_char, c_int, c_void};

/// A function of a table that is not called here.
pub(super) type Unused = *const c_void;

/// `FI_VERSION(1, 17)`: the interface that is described here.
pub(super) const VERSION: u32 = version(1, 17);

pub(super) const fn version(major: u32, minor: u32) -> u32 {
    major << 16 | minor
}

// Capabilities, flags of `fi_getinfo` and of `fi_ep_bind`.
pub(super) const FI_TAGGED: u64 = 1 << 3;
pub(super) const FI_RECV: u64 = 1 << 10;
pub(super) const FI_SEND: u64 = 1 << 11;
pub(super) const FI_SOURCE: u64 = 1 << 57;
// Formats of addresses: the first and the last of those that are a host's.
pub(super) const FI_SOCKADDR: u32 = 1;
pub(super) const FI_SOCKADDR_IB: u32 = 4;
// Modes of the caller.
pub(super) const FI_CONTEXT: u64 = 1 << 59;
pub(super) const FI_CONTEXT2: u64 = 1 << 52;
/// Messages to a peer are matched in the order in which they were sent.
pub(super) const FI_ORDER_SAS: u64 = 1 << 8;
// Kinds of endpoints, threading, progress, address vectors, completion queues.
pub(super) const FI_EP_RDM: c_int = 3;
pub(super) const FI_THREAD_DOMAIN: c_int = 3;
pub(super) const FI_PROGRESS_MANUAL: c_int = 2;
pub(super) const FI_AV_MAP: c_int = 1;
pub(super) const FI_CQ_FORMAT_MSG: c_int = 2;
pub(super) const FI_WAIT_NONE: c_int = 0;
pub(super) const FI_WAIT_FD: c_int = 3;
// Commands of `fi_control`.
pub(super) const FI_GETWAIT: c_int = 5;
pub(super) const FI_ENABLE: c_int = 6;
// What is wrong, as functions return it, negated: these are errno's, but the last.
pub(super) const FI_EAGAIN: i32 = 11;
pub(super) const FI_EAVAIL: i32 = 259;

/// What a provider asks of the memory that it is handed.
pub(super) mod mode {
    use std::ffi::c_int;

    /// Memory must be registered before it is sent from or received to.
    pub(in crate::sys::fabric) const LOCAL: c_int = 1 << 2;
    /// Of remote access only, which is not used: addresses, not offsets; memory that exists; keys of its choice.
    pub(in crate::sys::fabric) const OF_REMOTE_ACCESS: c_int = 1 << 4 | 1 << 5 | 1 << 6;
}

/// What a provider may use as long as an operation lasts; a completion tells its address. (`struct fi_context2`)
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Context([usize; 8]);

#[repr(C)]
pub(super) struct Info {
    pub(super) next: *mut Info,
    pub(super) caps: u64,
    pub(super) mode: u64,
    pub(super) addr_format: u32,
    pub(super) src_addrlen: usize,
    pub(super) dest_addrlen: usize,
    pub(super) src_addr: *mut c_void,
    pub(super) dest_addr: *mut c_void,
    pub(super) handle: *mut Fid,
    pub(super) tx_attr: *mut TxAttr,
    pub(super) rx_attr: *mut RxAttr,
    pub(super) ep_attr: *mut EpAttr,
    pub(super) domain_attr: *mut DomainAttr,
    pub(super) fabric_attr: *mut FabricAttr,
}

#[repr(C)]
pub(super) struct TxAttr {
    pub(super) caps: u64,
    pub(super) mode: u64,
    pub(super) op_flags: u64,
    pub(super) msg_order: u64,
    pub(super) comp_order: u64,
    pub(super) inject_size: usize,
    pub(super) size: usize,
    pub(super) iov_limit: usize,
}

#[repr(C)]
pub(super) struct RxAttr {
    pub(super) caps: u64,
    pub(super) mode: u64,
    pub(super) op_flags: u64,
    pub(super) msg_order: u64,
}

#[repr(C)]
pub(super) struct EpAttr {
    pub(super) r#type: c_int,
    pub(super) protocol: u32,
    pub(super) protocol_version: u32,
    pub(super) max_msg_size: usize,
    pub(super) msg_prefix_size: usize,
    pub(super) max_order_raw_size: usize,
    pub(super) max_order_war_size: usize,
    pub(super) max_order_waw_size: usize,
    pub(super) mem_tag_format: u64,
}

#[repr(C)]
pub(super) struct DomainAttr {
    pub(super) domain: *mut FidDomain,
    pub(super) name: *mut c_char,
    pub(super) threading: c_int,
    pub(super) control_progress: c_int,
    pub(super) data_progress: c_int,
    pub(super) resource_mgmt: c_int,
    pub(super) av_type: c_int,
    pub(super) mr_mode: c_int,
}

#[repr(C)]
pub(super) struct FabricAttr {
    pub(super) fabric: *mut FidFabric,
    pub(super) name: *mut c_char,
    pub(super) prov_name: *mut c_char,
}

/// What every object begins with.
#[repr(C)]
pub(super) struct Fid {
    pub(super) fclass: usize,
    pub(super) context: *mut c_void,
    pub(super) ops: *const Ops,
}

#[repr(C)]
pub(super) struct Ops {
    pub(super) size: usize,
    pub(super) close: unsafe extern "C" fn(*mut Fid) -> c_int,
    pub(super) bind: unsafe extern "C" fn(*mut Fid, *mut Fid, u64) -> c_int,
    pub(super) control: unsafe extern "C" fn(*mut Fid, c_int, *mut c_void) -> c_int,
}

#[repr(C)]
pub(super) struct FidFabric {
    pub(super) fid: Fid,
    pub(super) ops: *const OpsFabric,
}

#[repr(C)]
pub(super) struct OpsFabric {
    pub(super) size: usize,
    pub(super) domain:
        unsafe extern "C" fn(*mut FidFabric, *mut Info, *mut *mut FidDomain, *mut c_void) -> c_int,
    pub(super) passive_ep: Unused,
    pub(super) eq_open: Unused,
    pub(super) wait_open: Unused,
    pub(super) trywait: unsafe extern "C" fn(*mut FidFabric, *mut *mut Fid, c_int) -> c_int,
}

#[repr(C)]
pub(super) struct FidDomain {
    pub(super) fid: Fid,
    pub(super) ops: *const OpsDomain,
    pub(super) mr: *const OpsMr,
}

#[repr(C)]
pub(super) struct OpsDomain {
    pub(super) size: usize,
    pub(super) av_open:
        unsafe extern "C" fn(*mut FidDomain, *mut AvAttr, *mut *mut FidAv, *mut c_void) -> c_int,
    pub(super) cq_open:
        unsafe extern "C" fn(*mut FidDomain, *mut CqAttr, *mut *mut FidCq, *mut c_void) -> c_int,
    pub(super) endpoint:
        unsafe extern "C" fn(*mut FidDomain, *mut Info, *mut *mut FidEp, *mut c_void) -> c_int,
}

#[repr(C)]
pub(super) struct OpsMr {
    pub(super) size: usize,
    #[allow(clippy::type_complexity)]
    pub(super) reg: unsafe extern "C" fn(
        *mut Fid,
        *const c_void,
        usize,
        u64,
        u64,
        u64,
        u64,
        *mut *mut FidMr,
        *mut c_void,
    ) -> c_int,
}

#[repr(C)]
pub(super) struct FidMr {
    pub(super) fid: Fid,
    pub(super) mem_desc: *mut c_void,
}

#[repr(C)]
pub(super) struct AvAttr {
    pub(super) r#type: c_int,
    pub(super) rx_ctx_bits: c_int,
    pub(super) count: usize,
    pub(super) ep_per_node: usize,
    pub(super) name: *const c_char,
    pub(super) map_addr: *mut c_void,
    pub(super) flags: u64,
}

#[repr(C)]
pub(super) struct FidAv {
    pub(super) fid: Fid,
    pub(super) ops: *const OpsAv,
}

#[repr(C)]
pub(super) struct OpsAv {
    pub(super) size: usize,
    pub(super) insert:
        unsafe extern "C" fn(*mut FidAv, *const c_void, usize, *mut u64, u64, *mut c_void) -> c_int,
}

#[repr(C)]
pub(super) struct CqAttr {
    pub(super) size: usize,
    pub(super) flags: u64,
    pub(super) format: c_int,
    pub(super) wait_obj: c_int,
    pub(super) signaling_vector: c_int,
    pub(super) wait_cond: c_int,
    pub(super) wait_set: *mut c_void,
    /// For what later versions may look for there.
    pub(super) more: [usize; 4],
}

#[repr(C)]
pub(super) struct FidCq {
    pub(super) fid: Fid,
    pub(super) ops: *const OpsCq,
}

#[repr(C)]
pub(super) struct OpsCq {
    pub(super) size: usize,
    pub(super) read: unsafe extern "C" fn(*mut FidCq, *mut c_void, usize) -> isize,
    pub(super) readfrom: Unused,
    pub(super) readerr: unsafe extern "C" fn(*mut FidCq, *mut CqErrEntry, u64) -> isize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct CqMsgEntry {
    pub(super) op_context: *mut c_void,
    pub(super) flags: u64,
    pub(super) len: usize,
}

#[repr(C)]
pub(super) struct CqErrEntry {
    pub(super) op_context: *mut c_void,
    pub(super) flags: u64,
    pub(super) len: usize,
    pub(super) buf: *mut c_void,
    pub(super) data: u64,
    pub(super) tag: u64,
    pub(super) olen: usize,
    pub(super) err: c_int,
    pub(super) prov_errno: c_int,
    pub(super) err_data: *mut c_void,
    pub(super) err_data_size: usize,
    /// For what later versions may write there.
    pub(super) more: [usize; 4],
}

#[repr(C)]
pub(super) struct FidEp {
    pub(super) fid: Fid,
    pub(super) ops: *const OpsEp,
    pub(super) cm: *const OpsCm,
    pub(super) msg: Unused,
    pub(super) rma: Unused,
    pub(super) tagged: *const OpsTagged,
}

#[repr(C)]
pub(super) struct OpsEp {
    pub(super) size: usize,
    pub(super) cancel: unsafe extern "C" fn(*mut Fid, *mut c_void) -> isize,
}

#[repr(C)]
pub(super) struct OpsCm {
    pub(super) size: usize,
    pub(super) setname: Unused,
    pub(super) getname: unsafe extern "C" fn(*mut Fid, *mut c_void, *mut usize) -> c_int,
}

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) iov_base: *mut c_void,
    pub(super) iov_len: usize,
}

#[repr(C)]
pub(super) struct OpsTagged {
    pub(super) size: usize,
    #[allow(clippy::type_complexity)]
    pub(super) recv: unsafe extern "C" fn(
        *mut FidEp,
        *mut c_void,
        usize,
        *mut c_void,
        u64,
        u64,
        u64,
        *mut c_void,
    ) -> isize,
    pub(super) recvv: Unused,
    pub(super) recvmsg: Unused,
    #[allow(clippy::type_complexity)]
    pub(super) send:
        unsafe extern "C" fn(*mut FidEp, *const c_void, usize, *mut c_void, u64, u64, *mut c_void) -> isize,
    #[allow(clippy::type_complexity)]
    pub(super) sendv: unsafe extern "C" fn(
        *mut FidEp,
        *const Stretch,
        *mut *mut c_void,
        usize,
        u64,
        u64,
        *mut c_void,
    ) -> isize,
    pub(super) sendmsg: Unused,
    pub(super) inject: unsafe extern "C" fn(*mut FidEp, *const c_void, usize, u64, u64) -> isize,
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod tests;
