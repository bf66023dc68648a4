//! What the machine and its kernel offer.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{MembarrierQuery, futex, membarrier_query, sched_getaffinity};

use super::Fact;

pub(super) fn machine() -> Vec<Fact> {
    let mut facts = vec![Fact::plain("processor", processor()), Fact::plain("cores", cores())];
    facts.push(Fact::plain("kernels", format!("{} (the loops that reduce)", kolo::kernel::Variant::best())));
    let caches = caches();
    if !caches.is_empty() {
        facts.push(Fact::plain("caches", caches.join(", ")));
    }
    facts.push(Fact::plain("memory", memory()));
    facts
}

pub(super) fn kernel() -> Vec<Fact> {
    let name = rustix::system::uname();
    let release = format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy());
    let memfd = rustix::fs::memfd_create("kolo-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let word = AtomicU32::new(0);
    let futex = futex::wake(&word, futex::Flags::empty(), 1);
    let membarrier = match membarrier_query().contains(MembarrierQuery::GLOBAL_EXPEDITED) {
        true => Ok("yes: parking costs the waker nothing".to_owned()),
        false => Err("sleepers look up now and then"),
    };
    vec![
        Fact::plain("release", release),
        Fact::found("memfd", memfd.map(|_| "yes: shared memory without names or leftovers".into())),
        Fact::found("futex", futex.map(|_| "yes: ranks can park in shared memory".into())),
        Fact::found("membarrier", membarrier),
        Fact::plain("huge pages", huge_pages()),
        Fact::plain("descriptors", limit(Resource::Nofile, 1, "")),
        Fact::plain("locked memory", limit(Resource::Memlock, 1 << 10, " KiB")),
    ]
}

pub(super) fn network() -> Vec<Fact> {
    let Ok(interfaces) = if_addrs::get_if_addrs() else {
        return vec![Fact::plain("interfaces", "they cannot be listed")];
    };
    let mut facts: Vec<Fact> = Vec::new();
    for interface in interfaces {
        let address = interface.ip();
        // Addresses that hold on one link only are of no use to a peer elsewhere.
        if matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()) {
            continue;
        }
        match facts.iter_mut().find(|fact| fact.name == interface.name) {
            Some(fact) => fact.value += &format!(", {address}"),
            None => facts.push(Fact::plain(interface.name.clone(), address.to_string())),
        }
    }
    for fact in &mut facts {
        let speed = read(format!("/sys/class/net/{}/speed", fact.name)).and_then(|text| text.parse().ok());
        if let Some(speed @ 1_u64..) = speed {
            fact.value += &format!(" ({speed} Mbit/s)");
        }
    }
    facts
}

fn processor() -> String {
    let info = read("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

fn cores() -> String {
    let online = read("/sys/devices/system/cpu/online").unwrap_or_default();
    let allowed = sched_getaffinity(None).map_or(0, |set| set.count());
    let nodes = fs::read_dir("/sys/devices/system/node").map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("node")).count()
    });
    let quota = read("/sys/fs/cgroup/cpu.max").and_then(|text| {
        let (quota, period) = text.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let quota = quota.map_or(String::new(), |quota| format!(", a quota of {quota:.1}"));
    let nodes = if nodes > 1 { format!(", {nodes} NUMA nodes") } else { String::new() };
    format!("{allowed} allowed of {online}{quota}{nodes}")
}

/// `L2 1024K`, each with the cores that share it where there are several.
fn caches() -> Vec<String> {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let cache = |index: usize| {
        let get = |name: &str| read(folder.join(format!("index{index}")).join(name));
        let kind = match get("type")?.as_str() {
            "Data" => "d",
            "Instruction" => return Some(None),
            _ => "",
        };
        let shared = get("shared_cpu_list").filter(|list| list != "0");
        let shared = shared.map_or(String::new(), |list| format!(" (cores {list})"));
        Some(Some(format!("L{}{kind} {}{shared}", get("level")?, get("size")?)))
    };
    (0..).map_while(cache).flatten().collect()
}

fn memory() -> String {
    let info = read("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    let gib = |kib: Option<u64>| {
        kib.map_or("?".into(), |kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20)))
    };
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| text.parse::<u64>().ok());
    let limit = limit.map_or(String::new(), |bytes| format!(", limited to {}", gib(Some(bytes >> 10))));
    format!("{}, {} available{limit}", gib(kib("MemTotal")), gib(kib("MemAvailable")))
}

fn huge_pages() -> String {
    let chosen = |file: &str| {
        let text = read(format!("/sys/kernel/mm/transparent_hugepage/{file}"))?;
        Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
    };
    let reserved = read("/proc/sys/vm/nr_hugepages").unwrap_or_else(|| "0".into());
    let transparent = chosen("enabled").unwrap_or_else(|| "absent".into());
    let shared = chosen("shmem_enabled").unwrap_or_else(|| "absent".into());
    format!("{reserved} reserved, transparent {transparent}, for shared memory {shared}")
}

fn limit(resource: Resource, unit: u64, name: &str) -> String {
    match getrlimit(resource).current {
        Some(limit) => format!("at most {}{name}", limit / unit),
        None => "without limit".into(),
    }
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
