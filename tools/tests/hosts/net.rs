//! Hosts that are network namespaces, on one switch.
//!
//! ```text
//!   host 0                host 1              switch (a namespace of its own)
//!   eth0 10.77.0.1        eth0 10.77.0.2      bridge ── port0, port1, ...
//!     └───────── veth ──────┼──────────────────── port0
//!                           └──────────────────── port1
//! ```
//! A second rail is another switch, with an `eth1` and a network (10.77.1.0) of its own on each host.
//!
//! Neither loopback nor abstract UNIX sockets cross them, so ranks in different ones are on different hosts; nothing
//! outside them is touched. They are named after this process, and go with the test: what a process that was killed
//! has left behind, the next one takes away.

use std::path::Path;
use std::process::{Command, Stdio};

/// See the module.
pub(crate) struct Net {
    name: String,
    hosts: usize,
    rails: usize,
    family: Family,
}

/// Which addresses hosts have; those with IPv6's have no others, not even on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What names of namespaces begin with.
const PREFIX: &str = "kolo-hosts";

impl Net {
    /// A host for each rate of its link (such as `1gbit`, or whatever the machine can do), for the test of that name;
    /// nothing, and a line that says why, where this process may not make them.
    pub(crate) fn new(test: &str, rates: &[Option<&str>]) -> Option<Self> {
        Self::with_rails(test, rates, 1)
    }

    /// The same with so many links for each host, all of its rate.
    pub(crate) fn with_rails(test: &str, rates: &[Option<&str>], rails: usize) -> Option<Self> {
        Self::lay_out(test, rates, rails, Family::V4)
    }

    /// So many hosts without an IPv4 address.
    pub(crate) fn ipv6(test: &str, hosts: usize) -> Option<Self> {
        if !Path::new("/proc/net/if_inet6").exists() {
            eprintln!("skipped: this kernel has no IPv6");
            return None;
        }
        Self::lay_out(test, &vec![None; hosts], 1, Family::V6)
    }

    fn lay_out(test: &str, rates: &[Option<&str>], rails: usize, family: Family) -> Option<Self> {
        let name = format!("{PREFIX}-{}-{test}", std::process::id());
        if let Err(why) = may_make_namespaces(&name) {
            eprintln!("skipped: {why}");
            return None;
        }
        sweep();
        // Made whole or taken away whole: whatever fails from here on drops it.
        let net = Self { name, hosts: rates.len(), rails, family };
        ip(&format!("netns add {}", net.switch()));
        for host in 0..net.hosts {
            ip(&format!("netns add {}", net.host(host)));
            ip(&format!("-n {} link set lo up", net.host(host)));
            // A network of its own under the same address on each host, as containers have it.
            let private = if family == Family::V4 { "172.17.0.1/16" } else { "fd17::1/64 nodad" };
            if family == Family::V6 {
                ip(&format!("-n {} address del 127.0.0.1/8 dev lo", net.host(host)));
            }
            ip(&format!("-n {} link add docker0 type bridge", net.host(host)));
            ip(&format!("-n {} address add {private} dev docker0", net.host(host)));
            ip(&format!("-n {} link set docker0 up", net.host(host)));
        }
        for rail in 0..rails {
            net.lay(rail, rates);
        }
        Some(net)
    }

    /// Lays a rail.
    fn lay(&self, rail: usize, rates: &[Option<&str>]) {
        let switch = self.switch();
        ip(&format!("-n {switch} link add bridge{rail} type bridge"));
        ip(&format!("-n {switch} link set bridge{rail} up"));
        for (host, rate) in rates.iter().enumerate() {
            let (name, port, eth) = (self.host(host), format!("port{rail}-{host}"), format!("eth{rail}"));
            ip(&format!("-n {switch} link add {port} type veth peer name {eth} netns {name}"));
            ip(&format!("-n {switch} link set {port} master bridge{rail} up"));
            let bits = if self.family == Family::V4 { "24" } else { "64 nodad" };
            ip(&format!("-n {name} address add {}/{bits} dev {eth}", self.on_rail(rail, host)));
            ip(&format!("-n {name} link set {eth} up"));
            if let Some(rate) = rate {
                let shaping = format!("root tbf rate {rate} burst 128k latency 50ms");
                run("tc", &format!("-n {name} qdisc add dev {eth} {shaping}"));
                run("tc", &format!("-n {switch} qdisc add dev {port} {shaping}"));
            }
        }
    }

    /// A name that no other net has.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many hosts there are.
    pub(crate) fn hosts(&self) -> usize {
        self.hosts
    }

    /// The processes that run on a host.
    pub(crate) fn processes(&self, host: usize) -> Vec<i32> {
        let pids = run("ip", &format!("netns pids {}", self.host(host)));
        pids.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// Where a host can be reached by the others, on the first rail.
    pub(crate) fn address(&self, host: usize) -> String {
        self.on_rail(0, host)
    }

    fn on_rail(&self, rail: usize, host: usize) -> String {
        match self.family {
            Family::V4 => format!("10.77.{rail}.{}", host + 1),
            Family::V6 => format!("fd77:0:0:{rail}::{}", host + 1),
        }
    }

    /// A port of a host, as it is written.
    pub(crate) fn place(&self, host: usize, port: u16) -> String {
        match self.family {
            Family::V4 => format!("{}:{port}", self.address(host)),
            Family::V6 => format!("[{}]:{port}", self.address(host)),
        }
    }

    /// Cuts a host off, without a word to anybody.
    pub(crate) fn cut_off(&self, host: usize) {
        for rail in 0..self.rails {
            ip(&format!("-n {} link set port{rail}-{host} down", self.switch()));
        }
    }

    /// A program that is to run on a host, in the stead of that command.
    pub(crate) fn on(&self, host: usize, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.host(host)]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }

    /// How many bytes a host has sent on each of its links.
    pub(crate) fn sent(&self, host: usize) -> Vec<u64> {
        let name = self.host(host);
        let on_rail = |rail: usize| {
            let counter = format!("/sys/class/net/eth{rail}/statistics/tx_bytes");
            let text = run("ip", &format!("netns exec {name} cat {counter}"));
            text.trim().parse().expect("a counter is a number")
        };
        (0..self.rails).map(on_rail).collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // With a namespace goes all that is in it; a link goes with either end.
        let hosts = (0..self.hosts).map(|host| self.host(host));
        hosts.chain([self.switch()]).for_each(|name| remove(&name));
    }
}

/// Namespaces are for root, and made by iproute2; some sandboxes allow root none.
fn may_make_namespaces(name: &str) -> Result<(), String> {
    let missing = |program: &str| Command::new(program).arg("-V").output().is_err();
    if let Some(program) = ["ip", "tc"].into_iter().find(|program| missing(program)) {
        assert!(std::env::var_os("CI").is_none(), "{program} (Debian package iproute2) is not installed");
        return Err(format!("{program} (Debian package iproute2) is not installed"));
    }
    let made = Command::new("ip").args(["netns", "add", name]).output().expect("it was run before");
    remove(name);
    match made.status.success() {
        true => Ok(()),
        false => Err(format!("no network namespace: {}", String::from_utf8_lossy(&made.stderr).trim())),
    }
}

/// Takes away the namespaces of processes that have ended.
fn sweep() {
    for name in run("ip", "netns list").lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
}

fn remove(name: &str) {
    // One that is not there is gone.
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}
