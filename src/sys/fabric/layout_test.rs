//! The layouts, compared with what a C program finds in the installed headers.

use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use super::*;

/// `(C's expression, its value here)` for fields of structures and for constants.
macro_rules! expected {
    ($($name:literal = $type:ident { $($field:ident),* $(,)? })* constants { $($constant:ident),* $(,)? }) => {
        vec![
            $($((
                format!(concat!("offsetof(struct ", $name, ", {})"), stringify!($field).trim_start_matches("r#")),
                offset_of!($type, $field) as u64,
            ),)*)*
            $((stringify!($constant).to_owned(), $constant as u64),)*
        ]
    };
}

fn expected() -> Vec<(String, u64)> {
    let mut expected = expected! {
        "fi_info" = Info {
            next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr, dest_addr, handle, tx_attr, rx_attr,
            ep_attr, domain_attr, fabric_attr,
        }
        "fi_tx_attr" = TxAttr { caps, mode, op_flags, msg_order, comp_order, inject_size, size, iov_limit }
        "fi_rx_attr" = RxAttr { caps, mode, op_flags, msg_order }
        "fi_ep_attr" = EpAttr {
            r#type, protocol, protocol_version, max_msg_size, msg_prefix_size, max_order_raw_size, max_order_war_size,
            max_order_waw_size, mem_tag_format,
        }
        "fi_domain_attr" = DomainAttr {
            domain, name, threading, control_progress, data_progress, resource_mgmt, av_type, mr_mode,
        }
        "fi_fabric_attr" = FabricAttr { fabric, name, prov_name }
        "fid" = Fid { fclass, context, ops }
        "fi_ops" = Ops { size, close, bind, control }
        "fid_fabric" = FidFabric { fid, ops }
        "fi_ops_fabric" = OpsFabric { size, domain, passive_ep, eq_open, wait_open, trywait }
        "fid_domain" = FidDomain { fid, ops, mr }
        "fi_ops_domain" = OpsDomain { size, av_open, cq_open, endpoint }
        "fi_ops_mr" = OpsMr { size, reg }
        "fid_mr" = FidMr { fid, mem_desc }
        "fi_av_attr" = AvAttr { r#type, rx_ctx_bits, count, ep_per_node, name, map_addr, flags }
        "fid_av" = FidAv { fid, ops }
        "fi_ops_av" = OpsAv { size, insert }
        "fi_cq_attr" = CqAttr { size, flags, format, wait_obj, signaling_vector, wait_cond, wait_set }
        "fid_cq" = FidCq { fid, ops }
        "fi_ops_cq" = OpsCq { size, read, readfrom, readerr }
        "fi_cq_msg_entry" = CqMsgEntry { op_context, flags, len }
        "fi_cq_err_entry" = CqErrEntry {
            op_context, flags, len, buf, data, tag, olen, err, prov_errno, err_data, err_data_size,
        }
        "fid_ep" = FidEp { fid, ops, cm, msg, rma, tagged }
        "fi_ops_ep" = OpsEp { size, cancel }
        "fi_ops_cm" = OpsCm { size, setname, getname }
        "iovec" = Stretch { iov_base, iov_len }
        "fi_ops_tagged" = OpsTagged { size, recv, recvv, recvmsg, send, sendv, inject }
        constants {
            FI_TAGGED, FI_RECV, FI_SEND, FI_SOURCE, FI_SOCKADDR, FI_SOCKADDR_IB, FI_CONTEXT, FI_CONTEXT2, FI_ORDER_SAS, FI_EP_RDM, FI_THREAD_DOMAIN,
            FI_PROGRESS_MANUAL, FI_AV_MAP, FI_CQ_FORMAT_MSG, FI_WAIT_NONE, FI_WAIT_FD, FI_GETWAIT, FI_ENABLE, FI_EAGAIN,
            FI_EAVAIL,
        }
    };
    let more: [(&str, u64); 6] = [
        ("FI_VERSION(1, 17)", VERSION.into()),
        ("FI_MR_LOCAL", mode::LOCAL as u64),
        ("FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY", mode::OF_REMOTE_ACCESS as u64),
        ("sizeof(struct fi_context2)", size_of::<Context>() as u64),
        // Whole, since the library writes arrays of them.
        ("sizeof(struct fi_cq_msg_entry)", size_of::<CqMsgEntry>() as u64),
        ("sizeof(struct iovec)", size_of::<Stretch>() as u64),
    ];
    expected.extend(more.map(|(expression, value)| (expression.to_owned(), value)));
    expected
}

/// What a C program prints for these expressions, or why it cannot be had.
fn asked_of_c(expressions: &[String]) -> Result<String, String> {
    if !Path::new("/usr/include/rdma/fabric.h").exists() {
        return Err("no headers of libfabric (Debian package libfabric-dev)".into());
    }
    let lines = expressions.iter().map(|expression| format!("P({expression})\n")).collect::<String>();
    let program = format!(
        "#include <rdma/fabric.h>\n#include <rdma/fi_cm.h>\n#include <rdma/fi_domain.h>\n#include <rdma/fi_endpoint.h>\n\
         #include <rdma/fi_eq.h>\n#include <rdma/fi_tagged.h>\n#include <stdio.h>\n\
         #define P(x) printf(\"%llu\\n\", (unsigned long long)(x));\nint main(void) {{\n{lines}return 0; }}\n"
    );
    let folder = std::env::temp_dir().join(format!("kolo-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|cause| cause.to_string())?;
    let (source, binary) = (folder.join("layout.c"), folder.join("layout"));
    let run = || -> std::io::Result<String> {
        std::fs::write(&source, program)?;
        let compiled = Command::new("cc").arg("-o").arg(&binary).arg(&source).output()?;
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        Ok(String::from_utf8_lossy(&Command::new(&binary).output()?.stdout).into_owned())
    };
    let printed = run().map_err(|cause| cause.to_string());
    let _ = std::fs::remove_dir_all(&folder);
    printed
}

#[test]
fn structures_lie_as_the_headers_say() {
    let expected = expected();
    let expressions: Vec<String> = expected.iter().map(|(expression, _)| expression.clone()).collect();
    let printed = match asked_of_c(&expressions) {
        Ok(printed) => printed,
        // tools/test installs them, and fails where it must and cannot.
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let values: Vec<u64> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(values.len(), expected.len());
    for ((expression, here), there) in expected.iter().zip(values) {
        assert_eq!(*here, there, "{expression}");
    }
}
