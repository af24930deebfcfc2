//! What crosses the wire: real traffic with peers that are not ours, every kind of packet, and what must not come in.

#[cfg(test)]
mod containers;
#[cfg(test)]
mod direct;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod mtu;
#[cfg(test)]
mod offloads;
#[cfg(test)]
mod pcap;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod reachable;
#[cfg(test)]
mod ttl;
#[cfg(test)]
mod underlay;
#[cfg(test)]
mod underlay_kinds;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod xdp;
