//! The maps and their typed lookups; nobody else sees a key. `bpf-maps.md` describes them.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use overlay_common::{
    Address, Encapsulation, Endpoint, LocalNode, NodeSubnets, Reason, Route, Traffic, UnderlayAddress,
};

/// How many entries there may be of each family. Memory is taken for those that there are.
const ENTRIES: u32 = 65_536;

/// Remote subnets and the nodes that own them. All subnets of a network have one length, so the subnet of an
/// address is found by masking, and a hash costs the same for 2 as for 65,536 subnets.
#[map]
static ROUTES: HashMap<[u8; 4], Route> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// The same for IPv6.
#[map]
static ROUTES_V6: HashMap<[u8; 16], Route> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// Underlay addresses of the nodes that own a subnet, with those subnets: to name the reason of a refusal.
#[map]
static NODES: HashMap<UnderlayAddress, NodeSubnets> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// What was exchanged with each remote subnet.
#[map]
static TRAFFIC: PerCpuHashMap<[u8; 4], Traffic> = PerCpuHashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// The same for IPv6.
#[map]
static TRAFFIC_V6: PerCpuHashMap<[u8; 16], Traffic> = PerCpuHashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// Which interface each address of our subnet belongs to.
#[map]
static ENDPOINTS: HashMap<[u8; 4], Endpoint> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// The same for IPv6.
#[map]
static ENDPOINTS_V6: HashMap<[u8; 16], Endpoint> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// The maps that are keyed by inner addresses: each family has its own.
pub(crate) struct Keyed<A: 'static> {
    routes: &'static HashMap<A, Route>,
    traffic: &'static PerCpuHashMap<A, Traffic>,
    endpoints: &'static HashMap<A, Endpoint>,
}

/// An address that is the key of maps.
pub(crate) trait Key: Address {
    /// Its family's maps.
    fn maps() -> Keyed<Self>;
}

impl Key for [u8; 4] {
    #[inline(always)]
    fn maps() -> Keyed<Self> {
        Keyed { routes: &ROUTES, traffic: &TRAFFIC, endpoints: &ENDPOINTS }
    }
}

impl Key for [u8; 16] {
    #[inline(always)]
    fn maps() -> Keyed<Self> {
        Keyed { routes: &ROUTES_V6, traffic: &TRAFFIC_V6, endpoints: &ENDPOINTS_V6 }
    }
}

/// This node.
#[map]
static LOCAL_NODE: Array<LocalNode> = Array::with_max_entries(1, 0);

/// Dropped packets by [`Reason`].
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);

/// What is put together for one call of a helper: with addresses of IPv6 it is too much for the stack.
#[map]
static SCRATCH: PerCpuArray<[u64; SCRATCH_LEN / 8]> = PerCpuArray::with_max_entries(1, 0);
const SCRATCH_LEN: usize = 128;

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

/// Whether the overlay has IPv6 inside: `udp` cannot.
#[inline(always)]
pub(crate) fn has_ipv6(node: &LocalNode) -> bool {
    matches!(encapsulation(), Encapsulation::Vxlan) && node.range::<[u8; 16]>().is_on()
}

/// The route to `subnet`, a masked address.
#[inline(always)]
pub(crate) fn route<A: Key>(subnet: &A) -> Option<Route> {
    // SAFETY: the value is copied out at once; a concurrent replacement by the agent swaps the whole element.
    unsafe { A::maps().routes.get(subnet) }.copied()
}

/// Whether a node with this underlay address owns a subnet.
#[inline(always)]
pub(crate) fn is_node(address: &UnderlayAddress) -> bool {
    NODES.get_ptr(address).is_some()
}

/// The interface that `address`, one of our subnet, belongs to, if that is known.
#[inline(always)]
pub(crate) fn endpoint<A: Key>(address: A) -> Option<Endpoint> {
    // SAFETY: as in `route`.
    unsafe { A::maps().endpoints.get(address) }.copied()
}

/// Memory for a `T`, made of bytes and numbers, until the next call; `None` cannot happen, but the verifier wants the check.
#[inline(always)]
pub(crate) fn scratch<T: Copy>() -> Option<&'static mut T> {
    const { assert!(size_of::<T>() <= SCRATCH_LEN && align_of::<T>() <= 8) };
    // SAFETY: there is room for a `T`, of which every bit pattern is valid; the value belongs to this CPU, and BPF programs on
    // one CPU do not interrupt each other here.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch.cast::<T>() })
}

/// Adds `traffic` to what was exchanged with `subnet`.
#[inline(always)]
pub(crate) fn count<A: Key>(subnet: A, traffic: Traffic) {
    if let Some(sum) = A::maps().traffic.get_ptr_mut(subnet) {
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
