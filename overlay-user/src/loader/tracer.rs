//! [`Tracer`]: the programs once more, attached nowhere, to be run on packets that nobody has sent.

use std::path::Path;

use aya::{
    Ebpf,
    maps::{HashMap, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use overlay_common::{Encapsulation, Event, Flow, FlowKey, Program, Selection};

use super::{
    Attached, LoadError,
    again::{Again, events_in},
    attached::query,
};
use crate::{
    maps::{Capacities, Family, Flows},
    rundir::RunDir,
};

/// The maps that the programs only read: they are the live ones. What the programs write is their own here, so that
/// nobody else sees it.
const READ_ONLY: [&str; 6] = ["LOCAL_NODE", "ROUTES", "ROUTES_V6", "NODES", "ENDPOINTS", "ENDPOINTS_V6"];

/// Room for the flows that the programs know: few are put in.
const FEW_FLOWS: u32 = 1024;

/// The programs, loaded over the live maps, telling what they do.
pub struct Tracer {
    ebpf: Ebpf,
    encapsulation: Encapsulation,
}

/// What a program has done with a packet.
#[derive(Debug)]
pub struct Run {
    /// Step by step.
    pub events: Vec<Event>,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

impl Tracer {
    /// Loads the programs that are `attached`, with what they were loaded with.
    ///
    /// # Errors
    /// When the attached ones are of another build, or the kernel refuses.
    pub fn load(run_dir: &RunDir, attached: &[Attached]) -> Result<Self, LoadError> {
        let few = Capacities { flows: FEW_FLOWS, candidates: FEW_FLOWS, ipv6: true };
        let entries = few.by_name();
        let again = Again { run_dir, attached, live: &READ_ONLY, entries: &entries, tell: Some(Selection::ALL) };
        let (ebpf, encapsulation) = again.load(Program::all())?;
        Ok(Self { ebpf, encapsulation })
    }

    /// How packets travel between nodes, by what is attached.
    #[must_use]
    pub fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    /// Lets the programs know what the live ones know of a flow, in the maps pinned in `maps`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remember<A: Family>(&mut self, maps: &Path, key: FlowKey<A>) -> Result<(), LoadError> {
        for name in A::FLOWS {
            let Some(flow) = Flows::open(maps, name).and_then(|flows| flows.get(key)).map_err(query)? else {
                continue;
            };
            let map = self.ebpf.map_mut(name).ok_or_else(|| LoadError::Query(format!("no map {name}")))?;
            let copied = HashMap::<_, FlowKey<A>, Flow>::try_from(map).and_then(|mut map| map.insert(key, flow, 0));
            copied.map_err(query)?;
        }
        Ok(())
    }

    /// Runs `program` on `packet`, as if on the hook of the interface with index `interface`.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub fn run(&mut self, program: Program, packet: &[u8], interface: u32) -> Result<Run, LoadError> {
        let mut skb = [0; SKB_LEN];
        skb[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&interface.to_ne_bytes());
        let mut out = vec![0; packet.len() + ROOM];
        let mut options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let loaded = self.ebpf.program(program.name()).ok_or(LoadError::Missing { program: program.name() })?;
        let result = if program == Program::XdpDecap {
            <&Xdp>::try_from(loaded).and_then(|loaded| loaded.test_run(options))
        } else {
            options.ctx_in = Some(&skb);
            <&SchedClassifier>::try_from(loaded).and_then(|loaded| loaded.test_run(options))
        };
        let failed = |source| LoadError::Run { program: program.name(), length: packet.len(), source };
        let length = result.map_err(failed)?.data_size_out as usize;
        out.truncate(length);
        Ok(Run { events: self.events()?, packet: out })
    }

    fn events(&mut self) -> Result<Vec<Event>, LoadError> {
        let map = self.ebpf.map_mut("EVENTS").ok_or_else(|| LoadError::Query("no map EVENTS".to_owned()))?;
        Ok(events_in(&mut RingBuf::try_from(map).map_err(query)?))
    }
}

/// Size of `struct __sk_buff`, and where the interface stands in it (linux/bpf.h).
const SKB_LEN: usize = 192;
const SKB_IFINDEX: usize = 40;

/// By how much a packet may grow: outer headers, or an ICMP answer.
const ROOM: usize = 256;
