//! How an endpoint is found.
//!
//! No one set of hints suits all providers, so several are tried in turn; why each failed is kept for whoever asks.
//!
//! | rung           | for                                                                        |
//! | -------------- | -------------------------------------------------------------------------- |
//! | at an address  | networks: the interface through which this rank came to the job             |
//! | anywhere       | providers that take no such address (shm), or know it by another one        |

use std::sync::Arc;

use super::{Providers, SLOT};
use crate::config;
use crate::sys::fabric::{Info, Libfabric, Port, Wanted};
use crate::transport::Reason;

/// Providers that are taken only where they are named: within a host there is better, and what is emulated is slower
/// than what it emulates.
const ONLY_BY_NAME: [&str; 5] = ["shm", "sockets", "udp", "net", "sm2"];

/// The fewest bits that a tag may have: links are told apart by them, and strangers are to guess none.
const TAG_BITS: u32 = 40;

/// Loads the library that the configuration names, or the system's.
pub(super) fn load(settings: &config::Fabric) -> Result<Arc<Libfabric>, Reason> {
    Libfabric::load(settings.library.as_deref()).map_err(|why| match &settings.library {
        Some(path) => format!("KOLO_LIBFABRIC={}: {why}", path.display()),
        None => format!("no libfabric here ({why}): install Debian's libfabric1, or set KOLO_LIBFABRIC"),
    })
}

/// The first endpoint that opens.
pub(super) fn climb(settings: &config::Fabric, source: Option<&str>) -> Result<(Info, Port), Reason> {
    let library = load(settings)?;
    let wanted = settings.provider.as_deref();
    let mut reasons = Vec::new();
    let rungs = source.map(Some).into_iter().chain([None]);
    for source in rungs {
        let rung = source.map_or_else(|| "anywhere".to_owned(), |source| format!("at {source}"));
        match try_rung(&library, wanted, source) {
            Ok(found) => return Ok(found),
            Err(why) => reasons.push(format!("{rung}: {why}")),
        }
    }
    let named = wanted.map_or_else(String::new, |name| format!(" `{name}` (KOLO_FABRIC_PROVIDER)"));
    let version = library.version();
    Err(format!("libfabric {version} has no provider{named} that serves: {}", reasons.join("; ")))
}

fn try_rung(
    library: &Arc<Libfabric>,
    wanted: Option<&str>,
    source: Option<&str>,
) -> Result<(Info, Port), Reason> {
    let offers = library.offers(&Wanted { source }).map_err(|fault| library.text(fault))?;
    let mut reasons = Vec::new();
    let mut seen = Vec::new();
    for info in offers {
        let (provider, domain) = (info.provider(), info.domain());
        if !seen.contains(&provider) {
            seen.push(provider.clone());
        }
        // What takes a host's address for a name of its own would give all processes there the same.
        if !is_meant(&provider, wanted) || source.is_some() && !info.has_host_addresses() {
            continue;
        }
        let opened = suits(&info).and_then(|()| Port::open(&info).map_err(|fault| library.text(fault)));
        match opened {
            Ok(port) => return Ok((info, port)),
            Err(why) => reasons.push(format!("{provider} on {domain}: {why}")),
        }
    }
    if reasons.is_empty() {
        return Err(format!("it offers {}", if seen.is_empty() { "none".into() } else { seen.join(", ") }));
    }
    Err(reasons.join(", "))
}

/// Whether a provider is the one that is wanted: `tcp` is that, and that below another layer: `tcp;ofi_rxm`.
fn is_meant(provider: &str, wanted: Option<&str>) -> bool {
    let base = base(provider);
    match wanted {
        Some(wanted) => wanted == provider || wanted == base,
        None => !ONLY_BY_NAME.contains(&base),
    }
}

/// What a provider is at the bottom.
pub(super) fn base(provider: &str) -> &str {
    provider.split(';').next().unwrap_or(provider)
}

/// Whether what a provider has taken of a message that is injected lies in the peer's memory: then nothing is left to be
/// done for it. Others may have put it aside.
pub(super) fn fills_peers_memory(provider: &str) -> bool {
    base(provider) == "shm"
}

fn suits(info: &Info) -> Result<(), Reason> {
    if info.longest() < SLOT {
        return Err(format!("messages of {} bytes at most", info.longest()));
    }
    if info.tag_bits() < TAG_BITS {
        return Err(format!("tags of {} bits", info.tag_bits()));
    }
    Ok(())
}

/// What `kolo doctor` tells of a provider: what it would be on, or why it does not serve.
pub(super) fn survey(library: &Arc<Libfabric>) -> Result<Providers, Reason> {
    let mut found = Providers::new();
    for info in library.offers(&Wanted { source: None }).map_err(|fault| library.text(fault))? {
        let (provider, domain) = (info.provider(), info.domain());
        let opens = suits(&info).and_then(|()| Port::open(&info).map_err(|fault| library.text(fault)));
        let outcome = opens.map(|port| {
            let sleeps = if port.has_descriptor() { "" } else { ", sleepers look up every millisecond" };
            format!("opens on {domain}{sleeps}")
        });
        match found.iter_mut().find(|(known, _)| *known == provider) {
            // One domain that serves is enough.
            Some((_, Ok(_))) => {}
            Some((_, failed)) => *failed = outcome,
            None => found.push((provider, outcome)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_meant_by_its_name_or_what_it_is_at_the_bottom() {
        assert!(is_meant("tcp;ofi_rxm", Some("tcp")) && is_meant("tcp;ofi_rxm", Some("tcp;ofi_rxm")));
        assert!(is_meant("tcp", None) && is_meant("verbs;ofi_rxm", None));
        assert!(!is_meant("shm", None) && is_meant("shm", Some("shm")) && !is_meant("udp;ofi_rxd", None));
        assert!(!is_meant("tcp", Some("tcp;ofi_rxm")) && !is_meant("tcp", Some("tc")));
    }
}
