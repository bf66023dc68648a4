//! The addresses at which other hosts reach this one, and which of them may be used.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::error::{Error, Result};

/// An address of this host, and how many of its bits name its network.
pub(super) type Address = (IpAddr, u8);

/// Which interfaces may be used: those of some names (`eth0,ib`: each that begins so) and networks (`10.1.0.0/16`), or,
/// after `^`, all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces {
    text: String,
    others: bool,
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    Network(Address),
}

impl FromStr for Interfaces {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (others, list) = text.strip_prefix('^').map_or((false, text), |list| (true, list));
        let pattern = |pattern: &str| match (pattern.trim(), pattern.split_once('/')) {
            ("", _) => Err(()),
            (_, Some((ip, bits))) => {
                let ip: IpAddr = ip.trim().parse().map_err(|_| ())?;
                let bits = bits.trim().parse().map_err(|_| ())?;
                let most = if ip.is_ipv4() { 32 } else { 128 };
                if bits <= most { Ok(Pattern::Network((ip, bits))) } else { Err(()) }
            }
            (name, None) => Ok(Pattern::Name(name.to_owned())),
        };
        let patterns = list.split(',').map(pattern).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), others, patterns })
    }
}

impl Interfaces {
    fn allow(&self, name: &str, address: Address) -> bool {
        let matches = |pattern: &Pattern| match pattern {
            Pattern::Name(begin) => name.starts_with(begin.as_str()),
            Pattern::Network(wanted) => network((address.0, wanted.1)) == network(*wanted),
        };
        self.patterns.iter().any(matches) != self.others
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The network of an address: its other bits are 0.
pub(super) fn network((ip, bits): Address) -> Address {
    let ip = match ip {
        IpAddr::V4(ip) => IpAddr::V4(
            (ip.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)).into(),
        ),
        IpAddr::V6(ip) => IpAddr::V6(
            (ip.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)).into(),
        ),
    };
    (ip, bits)
}

/// This host's addresses that are allowed, the one first that led this rank to the rendezvous (`own`).
///
/// # Errors
/// `Usage` where there is none, with those that there are.
pub(super) fn addresses(own: Option<IpAddr>, allowed: Option<&Interfaces>) -> Result<Vec<Address>> {
    let found = if_addrs::get_if_addrs().map_err(|cause| Error::system("listing the interfaces", cause))?;
    let bits = |addr: &if_addrs::IfAddr| match addr {
        if_addrs::IfAddr::V4(addr) => addr.prefixlen,
        if_addrs::IfAddr::V6(addr) => addr.prefixlen,
    };
    let all: Vec<(String, Address)> = found
        .into_iter()
        .filter(|interface| !interface.is_link_local())
        .map(|interface| (interface.name.clone(), (interface.ip(), bits(&interface.addr))))
        .collect();
    choose(&all, own.or_else(by_name), allowed)
}

fn choose(
    all: &[(String, Address)],
    own: Option<IpAddr>,
    allowed: Option<&Interfaces>,
) -> Result<Vec<Address>> {
    let fits = |(name, address): &&(String, Address)| {
        !address.0.is_loopback() && allowed.is_none_or(|allowed| allowed.allow(name, *address))
    };
    let mut chosen: Vec<Address> = all.iter().filter(fits).map(|(_, address)| *address).collect();
    if chosen.is_empty() {
        let known: Vec<_> = all.iter().map(|(name, (ip, bits))| format!("{name} {ip}/{bits}")).collect();
        let allowed =
            allowed.map_or("none".into(), |allowed| format!("KOLO_INTERFACE={allowed} allows none"));
        let text = format!(
            "of this host's addresses {allowed} at which other hosts could reach it; there are {}",
            known.join(", ")
        );
        return Err(Error::usage(text));
    }
    let first = chosen.iter().position(|(ip, _)| Some(*ip) == own).unwrap_or(0);
    chosen[..=first].rotate_right(1);
    Ok(chosen)
}

/// The address that this host's name stands for.
fn by_name() -> Option<IpAddr> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let found = (host.trim(), 0).to_socket_addrs().ok()?;
    found.map(|address| address.ip()).find(|ip| !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<(String, Address)> {
        let list = [
            ("lo", "127.0.0.1", 8),
            ("eth0", "10.1.0.5", 16),
            ("eth1", "10.2.0.5", 16),
            ("docker0", "172.17.0.1", 16),
            ("eth0", "fd00::5", 64),
        ];
        list.map(|(name, ip, bits)| (name.to_owned(), (ip.parse().unwrap(), bits))).into()
    }

    fn chosen(allowed: &str, own: &str) -> Vec<String> {
        let allowed = (!allowed.is_empty()).then(|| allowed.parse::<Interfaces>().unwrap());
        let chosen = choose(&host(), own.parse().ok(), allowed.as_ref()).unwrap();
        chosen.iter().map(|(ip, _)| ip.to_string()).collect()
    }

    #[test]
    fn names_and_networks_choose() {
        assert_eq!(chosen("", ""), ["10.1.0.5", "10.2.0.5", "172.17.0.1", "fd00::5"]);
        assert_eq!(chosen("", "10.2.0.5"), ["10.2.0.5", "10.1.0.5", "172.17.0.1", "fd00::5"]);
        assert_eq!(chosen("eth", "fd00::5"), ["fd00::5", "10.1.0.5", "10.2.0.5"]);
        assert_eq!(chosen("eth1, docker", ""), ["10.2.0.5", "172.17.0.1"]);
        assert_eq!(chosen("^docker", "172.17.0.1"), ["10.1.0.5", "10.2.0.5", "fd00::5"]);
        assert_eq!(chosen("10.0.0.0/8", ""), ["10.1.0.5", "10.2.0.5"]);
        assert_eq!(chosen("^10.1.0.0/16,docker", ""), ["10.2.0.5", "fd00::5"]);
        assert_eq!(chosen("fd00::/16", ""), ["fd00::5"]);
    }

    #[test]
    fn where_none_is_left_those_that_there_are_are_said() {
        for allowed in ["ib0", "lo", "10.3.0.0/16", "^eth,docker"] {
            let error = choose(&host(), None, Some(&allowed.parse().unwrap())).unwrap_err().to_string();
            assert!(error.contains(&format!("KOLO_INTERFACE={allowed} ")), "{error}");
            assert!(error.contains("lo 127.0.0.1/8, eth0 10.1.0.5/16, eth1"), "{error}");
        }
        assert!(choose(&host()[..1], None, None).unwrap_err().to_string().contains("lo 127.0.0.1/8"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["", "^", "eth0,", "10.1.0.0/33", "fd00::/129", "eth0/8", "10.1.0.0/x"] {
            assert!(text.parse::<Interfaces>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_lose_the_bits_of_their_hosts() {
        let net = |ip: &str, bits| network((ip.parse().unwrap(), bits)).0.to_string();
        assert_eq!(net("10.1.2.3", 16), "10.1.0.0");
        assert_eq!(net("10.1.2.3", 0), "0.0.0.0");
        assert_eq!(net("10.1.2.3", 32), "10.1.2.3");
        assert_eq!(net("fd00::12:3", 112), "fd00::12:0");
    }
}
