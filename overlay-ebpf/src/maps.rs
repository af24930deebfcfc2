//! The maps and their typed lookups; nobody else sees a key. `bpf-maps.md` describes them.

use core::net::Ipv4Addr;

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use overlay_common::{Encapsulation, Endpoint, LocalNode, Reason, Route, Traffic};

/// Remote subnets and the nodes that own them. All subnets of a network have one length, so the subnet of an
/// address is found by masking, and a hash costs the same for 2 as for 65,536 subnets.
#[map]
static ROUTES: HashMap<[u8; 4], Route> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Underlay addresses of the nodes that own a subnet, with that subnet: to name the reason of a refusal.
#[map]
static NODES: HashMap<[u8; 4], [u8; 4]> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// What was exchanged with each remote subnet.
#[map]
static TRAFFIC: PerCpuHashMap<[u8; 4], Traffic> = PerCpuHashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Which interface each address of our subnet belongs to.
#[map]
static ENDPOINTS: HashMap<[u8; 4], Endpoint> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// This node.
#[map]
static LOCAL_NODE: Array<LocalNode> = Array::with_max_entries(1, 0);

/// Dropped packets by [`Reason`].
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);

/// [`Encapsulation`] of the cluster; fixed for the life of a load, so the verifier drops the code of the other.
/// A section of its own makes it a map of its own, where `overlay trace` reads it again.
#[unsafe(link_section = ".rodata.encap")]
#[unsafe(no_mangle)]
static ENCAPSULATION: Global<u8> = Global::new(Encapsulation::Vxlan as u8);

/// How packets travel between the nodes of this cluster.
#[inline(always)]
pub(crate) fn encapsulation() -> Encapsulation {
    if ENCAPSULATION.load() == Encapsulation::Udp as u8 { Encapsulation::Udp } else { Encapsulation::Vxlan }
}

/// This node; `None` cannot happen with an array's first entry, but the verifier wants the check.
#[inline(always)]
pub(crate) fn local_node() -> Option<&'static LocalNode> {
    LOCAL_NODE.get(0)
}

/// The route to `subnet`, a masked address.
#[inline(always)]
pub(crate) fn route(subnet: [u8; 4]) -> Option<Route> {
    // SAFETY: the value is copied out at once; a concurrent replacement by the agent swaps the whole element.
    unsafe { ROUTES.get(subnet) }.copied()
}

/// Whether a node with this underlay address owns a subnet.
#[inline(always)]
pub(crate) fn is_node(address: Ipv4Addr) -> bool {
    NODES.get_ptr(address.octets()).is_some()
}

/// The interface that `address`, one of our subnet, belongs to, if that is known.
#[inline(always)]
pub(crate) fn endpoint(address: [u8; 4]) -> Option<Endpoint> {
    // SAFETY: as in `route`.
    unsafe { ENDPOINTS.get(address) }.copied()
}

/// Adds `traffic` to what was exchanged with `subnet`.
#[inline(always)]
pub(crate) fn count(subnet: [u8; 4], traffic: Traffic) {
    if let Some(sum) = TRAFFIC.get_ptr_mut(subnet) {
        // SAFETY: the value belongs to this CPU, and BPF programs on one CPU do not interrupt each other here:
        // both counts of a direction are written from softirq context only.
        unsafe { *sum += traffic };
    }
}

/// Counts a packet dropped for `reason`.
#[inline(always)]
pub(crate) fn count_drop(reason: Reason) {
    if let Some(count) = DROPS.get_ptr_mut(reason.index()) {
        // SAFETY: the value belongs to this CPU.
        unsafe { *count += 1 };
    }
}
