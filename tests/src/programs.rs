//! The programs in the kernel, run on single packets through `BPF_PROG_TEST_RUN`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf},
    programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use overlay_common::{
    Encapsulation, Endpoint, Event, Flow, FlowKey, LocalNode, MAX_FLOWS, NodeSubnets, Range, Reason, Route, Ticks,
    Traffic, UnderlayAddress, Vtep,
};
use overlay_user::maps::{Family, patiently};

/// The node that the programs believe to run on.
pub const VTEP: Vtep = Vtep { address: Ipv4Addr::new(192, 168, 50, 1), mac: [0x02, 0, 0, 0, 0, 1], port: 8472, vni: 1 };
/// The overlay network.
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 0, 0), 16);
/// The node's own subnet.
pub const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 15, 0), 24);
/// The other node's subnet.
pub const REMOTE_SUBNET: [u8; 4] = [10, 1, 16, 0];
/// The other node's underlay address.
pub const REMOTE_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
/// The MAC address of the other node's VTEP.
pub const REMOTE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

/// The same tunnel end over IPv6.
pub const VTEP_V6: Vtep<[u8; 16]> = Vtep {
    address: Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 1),
    mac: [0x02, 0, 0, 0, 0x66, 1],
    port: VTEP.port,
    vni: VTEP.vni,
};
/// The overlay network of IPv6.
pub const NETWORK_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0), 48);
/// The node's own subnet of it.
pub const SUBNET_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 1, 0, 15, 0, 0, 0, 0), 64);
/// The other node's.
pub const REMOTE_SUBNET_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 1, 0, 16, 0, 0, 0, 0).octets();
/// The other node's underlay address of IPv6.
pub const REMOTE_NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 2);

/// What a program did with a packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the hook returned.
    pub verdict: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The reason counted, if one was.
    pub counted: Option<Reason>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "verdict {}, counted {:?}, packet ", self.verdict, self.counted)?;
        self.packet.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// What `__sk_buff` or `xdp_md` say beside the bytes of a packet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// Size in bytes of the segments of a super-packet.
    pub gso_size: u32,
    /// Number of segments of a super-packet.
    pub gso_segs: u32,
}

/// The programs, loaded over maps of their own and attached nowhere.
pub struct Programs {
    ebpf: Ebpf,
}

impl Programs {
    /// Loads the programs for a node [`VTEP`] that owns [`SUBNET`] and knows [`REMOTE_NODE`].
    ///
    /// # Errors
    /// When the kernel refuses a program: the error holds the verifier's words.
    pub fn load(encapsulation: Encapsulation) -> Result<Self> {
        Self::load_with_fast_path(encapsulation, 0)
    }

    /// The same, with a fast path whose approvals last `flow_ttl`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_fast_path(encapsulation: Encapsulation, flow_ttl: Ticks) -> Result<Self> {
        Self::load_for_flows(encapsulation, flow_ttl, MAX_FLOWS)
    }

    /// The same with both families, inside and on the underlay; the other node is known by its address `other_node`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_dual_stack(other_node: IpAddr, flow_ttl: Ticks) -> Result<Self> {
        let mut programs = Self::load_with_fast_path(Encapsulation::Vxlan, flow_ttl)?;
        programs.set_dual_stack(other_node)?;
        Ok(programs)
    }

    /// The same, with room for so many flows.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for_flows(encapsulation: Encapsulation, flow_ttl: Ticks, flows: u32) -> Result<Self> {
        Self::load_object(encapsulation, flow_ttl, flows, 0)
    }

    /// Loads the programs of [`load`](Self::load) as `overlay trace` has them: they [tell](Self::told) what they do. With a fast
    /// path, so that all their code is there.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_telling(encapsulation: Encapsulation) -> Result<Self> {
        Self::load_object(encapsulation, 1, MAX_FLOWS, 1)
    }

    fn load_object(encapsulation: Encapsulation, flow_ttl: Ticks, flows: u32, trace: u8) -> Result<Self> {
        let (encapsulation, log_off) = (encapsulation as u8, 0_u8);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS", flows)
            .override_global("ENCAPSULATION", &encapsulation, true)
            .override_global("AYA_LOG_LEVEL", &log_off, true)
            .override_global("FLOW_TTL", &flow_ttl, true)
            .override_global("TRACE", &trace, true)
            .load(overlay_user::loader::object())
            .context("load the object")?;
        for name in ["from_container", "to_overlay", "from_underlay", "admit", "to_container"] {
            let program: &mut SchedClassifier = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        let program: &mut Xdp = ebpf.program_mut("xdp_decap").context("xdp_decap")?.try_into()?;
        program.load().context("load xdp_decap")?;
        let mut programs = Self { ebpf };
        programs.set_node(LocalNode::new(1).over(&VTEP, 1).with(Range::<[u8; 4]>::new(NETWORK, SUBNET), 1450))?;
        programs.set_route(REMOTE_SUBNET, REMOTE_NODE)?;
        Ok(programs)
    }

    /// Tells the programs who they are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_node(&mut self, node: LocalNode) -> Result<()> {
        let mut map: Array<_, LocalNode> = self.map("LOCAL_NODE")?;
        Ok(map.set(0, node, 0)?)
    }

    /// Gives the node both families, inside and on the underlay; it knows the other node by its address `other_node`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_dual_stack(&mut self, other_node: IpAddr) -> Result<()> {
        let (v4, v6) = (Range::<[u8; 4]>::new(NETWORK, SUBNET), Range::<[u8; 16]>::new(NETWORK_V6, SUBNET_V6));
        self.set_node(LocalNode::new(1).over(&VTEP, 1).over(&VTEP_V6, 1).with(v4, 1450).with(v6, 1430))?;
        self.set_route(REMOTE_SUBNET, other_node)?;
        self.set_route(REMOTE_SUBNET_V6, other_node)
    }

    /// Adds a remote subnet and its node.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_route<A: Family>(&mut self, subnet: A, node: impl Into<UnderlayAddress>) -> Result<()> {
        self.set_route_to(subnet, Route::new(node, REMOTE_MAC))
    }

    /// Adds a remote subnet and all that is known of its node.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_route_to<A: Family>(&mut self, subnet: A, route: Route) -> Result<()> {
        let mut routes: HashMap<_, A, Route> = self.map(A::ROUTES)?;
        routes.insert(subnet, route, 0)?;
        let mut nodes: HashMap<_, UnderlayAddress, NodeSubnets> = self.map("NODES")?;
        let mut owned = nodes.get(&route.next_hop(), 0).unwrap_or_default();
        owned.set(subnet);
        nodes.insert(route.next_hop(), owned, 0)?;
        let mut traffic: PerCpuHashMap<_, A, Traffic> = self.map(A::TRAFFIC)?;
        let cpus = cpus()?;
        let zero = || PerCpuValues::try_from(vec![Traffic::default(); cpus]).map_err(MapError::IoError);
        Ok(patiently(|| traffic.insert(subnet, zero()?, 0))?)
    }

    /// Says whose `address` is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_endpoint<A: Family>(&mut self, address: A, endpoint: Endpoint) -> Result<()> {
        let mut map: HashMap<_, A, Endpoint> = self.map(A::ENDPOINTS)?;
        Ok(map.insert(address, endpoint, 0)?)
    }

    /// Enters a flow among those that the fast path carries.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_flow<A: Family>(&mut self, key: FlowKey<A>, flow: Flow) -> Result<()> {
        let mut map: HashMap<_, FlowKey<A>, Flow> = self.map(A::FLOWS[0])?;
        Ok(map.insert(key, flow, 0)?)
    }

    /// What is known of a flow that the fast path carries.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flow<A: Family>(&mut self, key: FlowKey<A>) -> Result<Option<Flow>> {
        let map: HashMap<_, FlowKey<A>, Flow> = self.map(A::FLOWS[0])?;
        match map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// What programs that were [loaded to tell](Self::load_telling) have told since this was asked last.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn told(&mut self) -> Result<Vec<Event>> {
        let mut ring: RingBuf<_> = self.map("EVENTS")?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(Event::from_bytes(&item).context("an event of another layout")?);
        }
        Ok(events)
    }

    /// Runs `program` on `packet`.
    ///
    /// # Errors
    /// When the kernel cannot run it.
    pub fn run(&mut self, program: &str, packet: &[u8], context: Context) -> Result<Outcome> {
        let before = self.drops()?;
        let (verdict, packet) = self.run_uncounted(program, packet, context)?;
        let counted = self.drops()?.into_iter().zip(before).find(|((_, after), (_, before))| after != before);
        Ok(Outcome { verdict, packet, counted: counted.map(|((reason, _), _)| reason) })
    }

    /// Runs `program` on `packet` and returns its verdict and the packet afterwards. Reads no counter, which costs
    /// more than the run.
    ///
    /// # Errors
    /// When the kernel cannot run it.
    pub fn run_uncounted(&self, program: &str, packet: &[u8], context: Context) -> Result<(i32, Vec<u8>)> {
        let mut out = vec![0; packet.len() + 256];
        let mut skb = [0_u8; SKB_LEN];
        skb[SKB_GSO_SEGS..SKB_GSO_SEGS + 4].copy_from_slice(&context.gso_segs.to_ne_bytes());
        skb[SKB_GSO_SIZE..SKB_GSO_SIZE + 4].copy_from_slice(&context.gso_size.to_ne_bytes());
        let mut options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match program {
            "xdp_decap" => <&Xdp>::try_from(self.ebpf.program(program).context("program")?)?.test_run(options)?,
            _ => {
                options.ctx_in = Some(&skb);
                <&SchedClassifier>::try_from(self.ebpf.program(program).context("program")?)?.test_run(options)?
            }
        };
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value as i32, out))
    }

    /// How many packets were dropped for `reason`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn dropped(&mut self, reason: Reason) -> Result<u64> {
        let map: PerCpuArray<_, u64> = self.map("DROPS")?;
        Ok(map.get(&reason.index(), 0)?.iter().sum())
    }

    /// Runs `program`, one for TC, on `packet` so many times and returns how long one run took on average.
    ///
    /// The packet is not restored between the runs: with more than one, `program` must not change it.
    ///
    /// # Errors
    /// When the kernel cannot run it.
    pub fn time(&mut self, program: &str, packet: &[u8], repeat: u32) -> Result<Duration> {
        let program = <&SchedClassifier>::try_from(self.ebpf.program(program).context("program")?)?;
        let options = TestRunOptions { data_in: Some(packet), repeat, ..TestRunOptions::new() };
        Ok(program.test_run(options)?.duration)
    }

    /// What was exchanged with `subnet`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic<A: Family>(&mut self, subnet: A) -> Result<Traffic> {
        let map: PerCpuHashMap<_, A, Traffic> = self.map(A::TRAFFIC)?;
        let mut sum = Traffic::default();
        for value in map.get(&subnet, 0)?.iter() {
            sum += *value;
        }
        Ok(sum)
    }

    /// How many packets were dropped for each reason, in the order of the counters.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn drops(&mut self) -> Result<Vec<(Reason, u64)>> {
        Reason::ALL.into_iter().map(|reason| Ok((reason, self.dropped(reason)?))).collect()
    }

    /// What the kernel says of `program`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn info(&self, program: &str) -> Result<ProgramInfo> {
        Ok(self.ebpf.program(program).context("no such program")?.info()?)
    }

    /// The map `name`, the hidden ones included.
    ///
    /// # Errors
    /// When there is none.
    pub fn map_by_name(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("no map {name}"))
    }

    fn map<'a, M>(&'a mut self, name: &str) -> Result<M>
    where
        M: TryFrom<&'a mut Map, Error = aya::maps::MapError>,
    {
        Ok(self.ebpf.map_mut(name).context("no such map")?.try_into()?)
    }
}

/// Size of `struct __sk_buff`, and where fields stand in it (linux/bpf.h).
const SKB_LEN: usize = 192;
const SKB_GSO_SEGS: usize = 164;
const SKB_GSO_SIZE: usize = 176;

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))
}
