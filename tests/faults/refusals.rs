//! System calls that a sandbox refuses.

use libc::{c_long, c_ulong, sock_filter, sock_fprog};

use crate::job::{Fate, Job};

const CALLS: [(&str, c_long); 6] = [
    ("memfd_create", libc::SYS_memfd_create),
    ("eventfd2", libc::SYS_eventfd2),
    ("membarrier", libc::SYS_membarrier),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("io_uring_setup", libc::SYS_io_uring_setup),
];

/// Has the kernel refuse a call to this thread, and to those that it starts: `membarrier EPERM`.
pub(crate) fn refuse(how: &str) {
    let (call, errno) = how.split_once(' ').expect("a call and an error");
    let (_, number) = CALLS.iter().find(|(name, _)| *name == call).expect("a call");
    let errno = if errno == "ENOSYS" { libc::ENOSYS } else { libc::EPERM };
    let statement = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    // Where the call's number, the first that `struct seccomp_data` says, is this one: the error; else go on.
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *number as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (yes, no): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: the first takes numbers alone, the second reads the program, which lasts as long as the call.
    let outcomes = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no),
            libc::prctl(libc::PR_SET_SECCOMP, c_ulong::from(libc::SECCOMP_MODE_FILTER), &raw const filter),
        ]
    };
    assert_eq!(outcomes, [0, 0], "{}", std::io::Error::last_os_error());
}

fn run(who: &str, refused: &str, transport: &str) -> Vec<Fate> {
    let trouble = format!("start refusal {refused}");
    let fates = Job { transport, deadline: "60", who, trouble: &trouble, environment: &[] }.run();
    println!("{refused}, {who}: {:?} {:?}", fates[1].told(), fates[1].printed);
    fates
}

#[test]
fn what_kolo_does_not_need_is_not_missed() {
    for refused in ["pidfd_open EPERM", "process_vm_readv EPERM", "io_uring_setup ENOSYS"] {
        let fates = run("all", refused, "shm");
        assert!(fates.iter().all(|fate| fate.is_well() && fate.printed.is_empty()), "{refused}: {fates:#?}");
    }
}

/// Ranks look up now and then instead; each process that must says so once.
#[test]
fn without_barriers_results_are_right_and_it_is_said_once() {
    for (who, refused, transport) in [
        ("all", "membarrier EPERM", "shm"),
        ("1", "membarrier ENOSYS", "shm"),
        ("all", "membarrier EPERM", "tcp"),
    ] {
        let fates = run(who, refused, transport);
        assert!(fates.iter().all(Fate::is_well), "{refused}: {fates:#?}");
        for (rank, fate) in fates.iter().enumerate() {
            let told = ["all", &rank.to_string()].contains(&who);
            assert_eq!(fate.printed.len(), usize::from(told), "{fates:#?}");
            let named =
                |line: &String| line.contains(&format!("kolo: rank {rank} ")) && line.contains("membarrier");
            assert!(fate.printed.iter().all(named), "{fates:#?}");
        }
    }
}

#[test]
fn without_memory_to_share_or_a_way_to_be_woken_the_error_says_what_to_allow() {
    for (call, refused) in [
        ("memfd_create", "memfd_create EPERM"),
        ("memfd_create", "memfd_create ENOSYS"),
        ("eventfd", "eventfd2 EPERM"),
    ] {
        for who in ["all", "1"] {
            let fates = run(who, refused, "shm");
            for (rank, fate) in fates.iter().enumerate() {
                let told = fate.told();
                assert!(fate.printed.is_empty(), "{fates:#?}");
                if who == "all" || rank == 1 {
                    let clear =
                        told.starts_with("System ") && told.contains(call) && told.contains("(seccomp)");
                    assert!(clear, "{fates:#?}");
                } else {
                    assert!(told.starts_with("PeerLost Some(1)"), "{fates:#?}");
                }
            }
        }
    }
}
