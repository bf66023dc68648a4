//! Who is where, once the ranks have met.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::handshake::printable;
use super::stream::room_for_another;
use super::wire::{Reader, Writer};
use super::{Bootstrap, Door, Interfaces, Node, find_host, rails};
use crate::error::{Error, Kind, Result};

/// Every rank's card, and the host that it lives on.
#[derive(Clone, Debug)]
pub struct Roster {
    /// In rank order.
    pub nodes: Vec<Node>,
    /// For each rank, the lowest rank that shares its host.
    pub hosts: Vec<u32>,
    /// How many networks join all hosts; at least 1.
    pub rails: usize,
}

/// What this rank's user says about its TCP door.
#[derive(Clone, Copy, Debug)]
pub struct Doorway<'a> {
    /// It opens at one of them; `0..=0`: at any.
    pub ports: &'a RangeInclusive<u16>,
    /// The interfaces at which it may be reached; nothing stands for all.
    pub interfaces: Option<&'a Interfaces>,
    /// Whether all that goes through it is encrypted.
    pub encrypt: bool,
}

/// When ranks open TCP doors; alike on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tcp {
    /// Never: no transport uses them.
    Never,
    /// If there are several hosts.
    BetweenHosts,
    /// In any case.
    Always,
}

impl Roster {
    /// Tells all ranks of each other. Where TCP doors are wanted, this rank's opens as `doorway` says, for this host
    /// alone if all ranks share one; and `offer` tells what its card says of libfabric, once it knows their addresses.
    ///
    /// # Errors
    /// As [`Bootstrap::all_gather`]; `Refused` where versions differ; `System` where no port is free.
    pub fn gather(
        bootstrap: &mut dyn Bootstrap,
        door: &mut Door,
        tcp: Tcp,
        doorway: Doorway<'_>,
        offer: impl Fn(&[SocketAddr]) -> String,
    ) -> Result<Self> {
        let me = bootstrap.rank();
        // A card is read from files: without them it would say that this rank is on a host of its own.
        room_for_another()?;
        let cards = bootstrap.all_gather(&Node::here(door).encode())?;
        let mut nodes = decode(&cards)?;

        let host = find_host(&nodes, me)?;
        let said = bootstrap.all_gather(&Writer::default().u32(host).done())?;
        let read = |(rank, bytes): (usize, &Vec<u8>)| {
            let host = Reader::new(bytes).u32().filter(|&host| host as usize <= rank);
            host.ok_or_else(|| Error::new(Kind::Refused, format!("rank {rank} sent a host that cannot be")))
        };
        let hosts = said.iter().enumerate().map(read).collect::<Result<Vec<u32>>>()?;

        let mut rails = 1;
        if tcp == Tcp::Always || tcp == Tcp::BetweenHosts && hosts.iter().any(|&host| host != 0) {
            let loopback = nodes.iter().all(|node| node.shares_loopback(&nodes[0]));
            let opened = door.open_tcp(loopback, bootstrap.address(), doorway);
            nodes = exchange_doors(bootstrap, nodes, opened, offer)?;
            if !loopback {
                rails = rails::agree(bootstrap, &mut nodes, &hosts)?;
            }
        }
        Ok(Self { nodes, hosts, rails })
    }
}

/// Completes all cards by the addresses of the doors; or says on every rank whose door did not open.
fn exchange_doors(
    bootstrap: &mut dyn Bootstrap,
    mut nodes: Vec<Node>,
    opened: Result<Vec<(SocketAddr, u8)>>,
    offer: impl Fn(&[SocketAddr]) -> String,
) -> Result<Vec<Node>> {
    let said = match &opened {
        Ok(addresses) => {
            let node = &mut nodes[bootstrap.rank()];
            (node.tcp, node.networks) = addresses.iter().copied().unzip();
            node.fabric = offer(&node.tcp);
            Writer::default().u8(1).raw(&node.encode()).done()
        }
        Err(error) => Writer::default().u8(0).raw(error.to_string().as_bytes()).done(),
    };
    let all = bootstrap.all_gather(&said)?;
    opened?;
    let card = |(rank, said): (usize, &Vec<u8>)| match said.split_first() {
        Some((1, card)) => Node::decode(rank, card),
        Some((_, why)) => Err(Error::new(Kind::System, format!("rank {rank}: {}", printable(why)))),
        None => Err(Error::new(Kind::Refused, format!("rank {rank} said nothing of its TCP door"))),
    };
    all.iter().enumerate().map(card).collect()
}

fn decode(cards: &[Vec<u8>]) -> Result<Vec<Node>> {
    cards.iter().enumerate().map(|(rank, bytes)| Node::decode(rank, bytes)).collect()
}
