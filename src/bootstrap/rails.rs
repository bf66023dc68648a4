//! Rails: the networks that join all hosts.
//!
//! Each host may have an interface in several networks. Those in which every host has one, each with another address,
//! may be one network or look alike by chance (every host has the same private network for its containers): so each
//! host tries to reach the next one on each. What all of them could reach is used, in the order in which rank 0 names
//! them; all ranks see all outcomes, and so agree.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::dial::reach;
use super::interfaces::{Address, network};
use super::stream::{Dialed, room_for_another};
use super::{Bootstrap, Node};
use crate::config::Place;
use crate::error::Result;
use crate::health::Deadline;
use crate::topology::MOST_RAILS;

/// How long the next host may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Leaves the rails' addresses on each card, in their order, and says how many there are; at least one.
pub(super) fn agree(bootstrap: &mut dyn Bootstrap, nodes: &mut [Node], hosts: &[u32]) -> Result<usize> {
    let shared = shared(nodes, hosts);
    let mut rails = Vec::new();
    if shared.len() > 1 {
        let me = bootstrap.rank();
        let reached = |network: &Address| -> Result<u8> {
            next(hosts, me).map_or(Ok(true), |next| opens_on(&nodes[next], *network)).map(u8::from)
        };
        let mine = shared.iter().map(reached).collect::<Result<Vec<u8>>>()?;
        let all = bootstrap.all_gather(&mine)?;
        let works = |at: &usize| all.iter().all(|theirs| theirs.get(*at) == Some(&1));
        rails.extend((0..shared.len()).filter(works).map(|at| shared[at]).take(MOST_RAILS));
    }
    if rails.is_empty() {
        let tried = try_in_turn(bootstrap, nodes, hosts)?;
        let of =
            |rank: usize| tried.iter().find(|(leader, _)| *leader == hosts[rank] as usize).map(|(_, ip)| *ip);
        nodes.iter_mut().enumerate().for_each(|(rank, node)| keep_one(node, of(rank)));
        return Ok(1);
    }
    nodes.iter_mut().for_each(|node| keep(node, &rails));
    Ok(rails.len())
}

/// Strikes all other addresses off a card. At one that nobody has tried somebody else may be, even the one who asks.
fn keep(node: &mut Node, rails: &[Address]) {
    let doors: Vec<_> = node.tcp.iter().copied().zip(node.networks.iter().copied()).collect();
    let on = |rail: &Address| doors.iter().find(|(door, bits)| network((door.ip(), *bits)) == *rail).copied();
    (node.tcp, node.networks) = rails.iter().filter_map(on).unzip();
}

/// The same for all but one; the first one, where that is not known.
fn keep_one(node: &mut Node, ip: Option<IpAddr>) {
    let at = node.tcp.iter().position(|door| Some(door.ip()) == ip).unwrap_or(0);
    let take = |at: usize| (node.tcp[at..].first().copied(), node.networks[at..].first().copied());
    let (door, bits) = take(at);
    (node.tcp, node.networks) = (door.into_iter().collect(), bits.into_iter().collect());
}

/// By hosts' first ranks: the address that the host before could reach.
fn try_in_turn(bootstrap: &mut dyn Bootstrap, nodes: &[Node], hosts: &[u32]) -> Result<Vec<(usize, IpAddr)>> {
    let me = bootstrap.rank();
    let mine: Vec<IpAddr> = addresses(&nodes[me]).map(|(ip, _)| ip).collect();
    let mut found = None;
    if let Some(next) = next(hosts, me) {
        for (at, door) in nodes[next].tcp.iter().enumerate() {
            if !mine.contains(&door.ip()) && opens(door)? {
                found = Some(at);
                break;
            }
        }
    }
    let said = bootstrap.all_gather(&found.map(|at| at as u8).map_or(vec![], |at| vec![at]))?;
    let address = |(rank, said): (usize, &Vec<u8>)| {
        let next = next(hosts, rank)?;
        Some((next, nodes[next].tcp.get(usize::from(*said.first()?))?.ip()))
    };
    Ok(said.iter().enumerate().filter_map(address).collect())
}

fn addresses(node: &Node) -> impl Iterator<Item = Address> + '_ {
    node.tcp.iter().map(|door| door.ip()).zip(node.networks.iter().copied())
}

/// The networks in which each host has an address that no other host has.
fn shared(nodes: &[Node], hosts: &[u32]) -> Vec<Address> {
    let leaders: Vec<&Node> =
        (0..nodes.len()).filter(|&rank| hosts[rank] as usize == rank).map(|rank| &nodes[rank]).collect();
    let alike = |wanted: &Address| {
        let within =
            |node: &Node| addresses(node).find(|address| network(*address) == *wanted).map(|(ip, _)| ip);
        let theirs: Option<BTreeSet<IpAddr>> = leaders.iter().map(|node| within(node)).collect();
        let everybody = nodes.iter().all(|node| within(node).is_some());
        everybody && theirs.is_some_and(|theirs| theirs.len() == leaders.len())
    };
    let mut found: Vec<Address> = Vec::new();
    for wanted in addresses(&nodes[0]).map(network).filter(alike) {
        if !found.contains(&wanted) {
            found.push(wanted);
        }
    }
    found
}

/// Whom this rank tries to reach: where it is its host's first one, the next host's.
fn next(hosts: &[u32], me: usize) -> Option<usize> {
    if hosts[me] as usize != me {
        return None;
    }
    let mut leaders = (0..hosts.len()).filter(|&rank| hosts[rank] as usize == rank);
    let first = leaders.next()?;
    Some(leaders.find(|&leader| leader > me).unwrap_or(first))
}

/// Whether that rank's door opens on a network.
fn opens_on(node: &Node, wanted: Address) -> Result<bool> {
    let within = |(door, bits): &(&SocketAddr, u8)| network((door.ip(), *bits)) == wanted;
    node.tcp.iter().zip(node.networks.iter().copied()).find(within).map_or(Ok(false), |(door, _)| opens(door))
}

/// Whether a door opens. The stream ends here: it tells nothing of who came.
///
/// # Errors
/// `System` where this rank can open no socket: then nobody knows.
fn opens(door: &SocketAddr) -> Result<bool> {
    let deadline = Deadline::after(Some(PATIENCE));
    match reach(&Place::Tcp(door.to_string()), &deadline) {
        Ok(Dialed::Open(_) | Dialed::Busy) => Ok(true),
        _ => room_for_another().map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Door, Secret};

    fn node(list: &[(&str, u8)]) -> Node {
        let door = Door::open("test", 0, 1, Secret::random().unwrap()).unwrap();
        let tcp = list.iter().map(|(ip, _)| (ip.parse::<IpAddr>().unwrap(), 4000).into()).collect();
        Node { tcp, networks: list.iter().map(|(_, bits)| *bits).collect(), ..Node::here(&door) }
    }

    #[test]
    fn networks_that_all_hosts_have_under_addresses_of_their_own() {
        let a = node(&[("10.1.0.1", 24), ("172.17.0.1", 16), ("10.2.0.1", 24), ("10.3.0.1", 24)]);
        let b = node(&[("10.2.0.2", 24), ("172.17.0.1", 16), ("10.1.0.2", 24)]);
        let c = node(&[("10.2.0.3", 24), ("10.1.0.3", 24), ("172.17.0.1", 16)]);
        let expected: Vec<Address> =
            vec![("10.1.0.0".parse().unwrap(), 24), ("10.2.0.0".parse().unwrap(), 24)];
        assert_eq!(shared(&[a.clone(), b.clone(), c.clone()], &[0, 1, 2]), expected);
        // Two ranks of one host have the same addresses.
        assert_eq!(shared(&[a.clone(), a.clone(), c.clone()], &[0, 0, 2]), expected);
        assert_eq!(shared(&[a.clone(), b.clone(), node(&[("10.9.0.1", 24)])], &[0, 1, 2]), []);
    }

    #[test]
    fn a_card_keeps_what_was_tried() {
        let card = node(&[("172.17.0.1", 16), ("10.2.0.1", 24), ("10.1.0.1", 24)]);
        let kept = |rails: &[(&str, u8)]| {
            let rails: Vec<Address> = rails.iter().map(|(ip, bits)| (ip.parse().unwrap(), *bits)).collect();
            let mut card = card.clone();
            keep(&mut card, &rails);
            assert_eq!(card.tcp.len(), card.networks.len());
            card.tcp.iter().map(|door| door.ip().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[("10.1.0.0", 24), ("10.2.0.0", 24)]), ["10.1.0.1", "10.2.0.1"]);
        assert_eq!(kept(&[("10.2.0.0", 24)]), ["10.2.0.1"]);
        for (ip, expected) in
            [(Some("10.1.0.1"), "10.1.0.1"), (Some("10.9.0.1"), "172.17.0.1"), (None, "172.17.0.1")]
        {
            let mut card = card.clone();
            keep_one(&mut card, ip.map(|ip| ip.parse().unwrap()));
            assert_eq!(
                (card.tcp[0].ip().to_string().as_str(), card.tcp.len(), card.networks.len()),
                (expected, 1, 1)
            );
        }
    }

    #[test]
    fn each_host_tries_the_next_one() {
        let hosts = [0, 0, 2, 2, 4, 0];
        let tries: Vec<_> = (0..6).map(|rank| next(&hosts, rank)).collect();
        assert_eq!(tries, [Some(2), None, Some(4), None, Some(0), None]);
    }
}
