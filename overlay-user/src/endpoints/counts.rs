//! What containers have sent and received, by the counters of their interfaces: the programs count by remote subnet only.

use std::collections::{BTreeMap, BTreeSet};

use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, Stats64};

use super::{
    EndpointsError,
    ask::Asker,
    fact::{Fact, Peer},
};

/// What a container has exchanged with anybody since its interface exists, as it sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerCounts {
    /// Name of the veth on the node's side.
    pub interface: String,
    /// Packets sent.
    pub sent_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// Reads the counters of the containers behind the veths with these indices on the node's side; those that are gone are
/// left out. Must be called in the node's network namespace and in a tokio runtime.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn container_counts(veths: &BTreeSet<u32>) -> Result<BTreeMap<u32, ContainerCounts>, EndpointsError> {
    // Interfaces alone, no addresses of any family.
    let asker = Asker::new(&[]).map_err(EndpointsError::Socket)?;
    let mut counts = BTreeMap::new();
    for message in asker.links().await? {
        let Fact::Link(link) = Fact::link(&message) else { continue };
        if !veths.contains(&link.ifindex) {
            continue;
        }
        let inside = match link.peer {
            Some(Peer { namespace: Some(namespace), ifindex }) => asker.link_inside(namespace, ifindex).await?,
            _ => None,
        };
        let counted = match (inside.as_ref().and_then(stats), stats(&message)) {
            // The veth on the node's side does not see what the programs hand to the container past it.
            (Some(inside), _) => ContainerCounts::inside(link.name, inside),
            (None, Some(outside)) => ContainerCounts::outside(link.name, outside),
            (None, None) => continue,
        };
        counts.insert(link.ifindex, counted);
    }
    Ok(counts)
}

impl ContainerCounts {
    /// By the interface in the container.
    fn inside(interface: String, stats: &Stats64) -> Self {
        Self {
            interface,
            sent_packets: stats.tx_packets,
            sent_bytes: stats.tx_bytes,
            received_packets: stats.rx_packets,
            received_bytes: stats.rx_bytes,
        }
    }

    /// By the veth on the node's side, which receives what the container sends.
    fn outside(interface: String, stats: &Stats64) -> Self {
        Self {
            interface,
            sent_packets: stats.rx_packets,
            sent_bytes: stats.rx_bytes,
            received_packets: stats.tx_packets,
            received_bytes: stats.tx_bytes,
        }
    }
}

fn stats(message: &LinkMessage) -> Option<&Stats64> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(stats),
        _ => None,
    })
}
