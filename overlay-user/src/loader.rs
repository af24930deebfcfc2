//! Loads the programs, attaches them, and pins what must outlive the agent.
//!
//! A restarted agent finds the pinned links and swaps the programs in them: at no moment is a packet without one.

mod again;
mod attach;
mod attached;
mod clsact;
mod error;
mod exchange;
mod live;
mod pinned;
mod places;
mod syscall;
mod tracer;

use std::{collections::BTreeSet, io, path::Path};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{ProgramError, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use overlay_common::{Encapsulation, Ticks};
use tokio::io::{Interest, unix::AsyncFd};

use self::attach::Hooks;
pub use self::{
    attach::take_down,
    attached::{Attached, attached},
    error::LoadError,
    exchange::Exchange,
    live::{LeftOut, Live},
    places::{Place, node_places, places},
    tracer::{Run, Tracer},
};
use crate::{
    maps::{self, Capacities},
    rundir::RunDir,
};

/// The compiled programs.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay-ebpf"));

/// The programs that TC runs.
const TC_PROGRAMS: [&str; 5] = ["to_overlay", "from_underlay", "admit", "from_container", "to_container"];

/// The program that the driver's XDP runs.
const XDP_PROGRAM: &str = "xdp_decap";

/// The compiled programs and maps, an ELF object.
#[must_use]
pub fn object() -> &'static [u8] {
    OBJECT
}

/// What is fixed for the life of a load: the verifier drops the code that it switches off.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// How packets travel between nodes.
    pub encapsulation: Encapsulation,
    /// How long netfilter's approval of a flow lasts; 0 switches the fast path off.
    pub flow_ttl: Ticks,
    /// Whether each drop is logged.
    pub log_drops: bool,
    /// Whether to attach by clsact also where the kernel has tcx.
    pub clsact: bool,
    /// How many entries maps have.
    pub capacities: Capacities,
}

/// An interface to attach to.
#[derive(Debug, Clone, Copy)]
pub struct Interface<'a> {
    /// Its name, for messages and for the kernel.
    pub name: &'a str,
    /// Its index.
    pub index: u32,
}

/// A program on the node's side of a container's veth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerProgram {
    /// `from_container`: what the container sends.
    From,
    /// `to_container`: what it is sent; only the fast path needs it.
    To,
}

impl ContainerProgram {
    const ALL: [Self; 2] = [Self::From, Self::To];

    /// The name of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::From => "from_container",
            Self::To => "to_container",
        }
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    hooks: Hooks,
}

impl Programs {
    /// Loads the programs over the maps pinned in `directory`; those that are not there yet are created and pinned.
    /// What is attached is noted in `run_dir`.
    ///
    /// # Errors
    /// When the kernel refuses the object.
    pub fn load(directory: &Path, run_dir: &RunDir, constants: Constants) -> Result<Self, LoadError> {
        let encapsulation = constants.encapsulation as u8;
        let mut loader = EbpfLoader::new();
        loader.override_global("ENCAPSULATION", &encapsulation, true);
        loader.override_global("FLOW_TTL", &constants.flow_ttl, true);
        let level = if constants.log_drops { aya_log::Level::Info as u8 } else { LOG_OFF };
        loader.override_global("AYA_LOG_LEVEL", &level, true);
        for name in maps::NAMES {
            loader.map_pin_path(name, directory.join(name));
        }
        for (name, entries) in constants.capacities.by_name() {
            loader.map_max_entries(name, entries);
        }
        Ok(Self { ebpf: loader.load(OBJECT)?, hooks: Hooks::new(run_dir, constants.clsact) })
    }

    /// Loads every program into the kernel, whether it will be attached or not: the verifier's word on all of them.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn load_all(&mut self) -> Result<(), LoadError> {
        for program in TC_PROGRAMS {
            let tc: &mut SchedClassifier = self::program(&mut self.ebpf, program)?;
            tc.load().map_err(|source| LoadError::Program { program, source })?;
        }
        let program = XDP_PROGRAM;
        let xdp: &mut Xdp = self::program(&mut self.ebpf, program)?;
        xdp.load().map_err(|source| LoadError::Program { program, source })
    }

    /// Hands what the programs log to our own log, for ever; of use only after a load with `log_drops`.
    ///
    /// # Errors
    /// When the log's ring buffer cannot be used.
    pub fn pass_on_log(&mut self) -> Result<impl Future<Output = ()> + Send + 'static, LoadError> {
        let logger = EbpfLogger::init(&mut self.ebpf).map_err(|error| LoadError::Log(io::Error::other(error)))?;
        // SAFETY: the logger owns its file descriptor and hands out the same one until it is dropped.
        let log = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let mut log = log.map_err(|error| LoadError::Log(error.into()))?;
        Ok(async move {
            while let Ok(mut readable) = log.readable_mut().await {
                readable.get_inner_mut().flush();
                readable.clear_ready();
            }
        })
    }

    /// Attaches `to_overlay` to the egress of the overlay device.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_to_overlay(&mut self, device: Interface<'_>) -> Result<(), LoadError> {
        self.attach_tc("to_overlay", device)
    }

    /// Attaches `from_underlay` to the ingress of the underlay interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_from_underlay(&mut self, underlay: Interface<'_>) -> Result<(), LoadError> {
        self.attach_tc("from_underlay", underlay)
    }

    /// Attaches `admit` to the ingress of the overlay device, after `from_underlay`, which marks what it lets in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_admit(&mut self, device: Interface<'_>) -> Result<(), LoadError> {
        self.attach_tc("admit", device)
    }

    /// Attaches a program to the node's side of a container's veth. The kernel takes tens of milliseconds for it, unless an
    /// earlier agent has attached one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_container(&mut self, program: ContainerProgram, veth: Interface<'_>) -> Result<(), LoadError> {
        self.attach_tc(program.name(), veth)
    }

    /// Detaches a program from the container's veth with this index, be it there or gone.
    ///
    /// # Errors
    /// When the directory of pins cannot be written.
    pub fn detach_container(&self, program: ContainerProgram, index: u32) -> Result<(), LoadError> {
        self.hooks.detach(&format!("{}-{index}", program.name()))
    }

    /// What is attached to containers' veths, by index, also by an earlier agent.
    ///
    /// # Errors
    /// When the directory of pins cannot be read.
    pub fn attached_containers(&self) -> Result<BTreeSet<(ContainerProgram, u32)>, LoadError> {
        let attached = |pin: String| {
            let (name, index) = pin.rsplit_once('-')?;
            let program = ContainerProgram::ALL.into_iter().find(|program| program.name() == name)?;
            Some((program, index.parse().ok()?))
        };
        Ok(self.hooks.pinned()?.into_iter().filter_map(attached).collect())
    }

    /// Attaches `xdp_decap` to the underlay interface, in its driver: the generic mode of the kernel would
    /// switch GRO off and copy each packet.
    ///
    /// # Errors
    /// When the driver has no XDP, or another program is attached.
    pub fn attach_xdp_decap(&mut self, underlay: Interface<'_>) -> Result<(), LoadError> {
        let name = XDP_PROGRAM;
        let program: &mut Xdp = self::program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| LoadError::Program { program: name, source })?;
        }
        self.hooks.attach_xdp(name, program, underlay)
    }

    /// Whether programs are attached by clsact, for want of tcx.
    #[must_use]
    pub const fn are_filters(&self) -> bool {
        self.hooks.are_filters()
    }

    /// Detaches what an earlier agent left attached and this one has not attached: programs on interfaces
    /// that are gone or no longer ours. Containers' are left to [`detach_container`](Self::detach_container).
    ///
    /// # Errors
    /// When the directory of pins cannot be read or written.
    pub fn detach_all_but(&self, keep: &[(&str, u32)]) -> Result<(), LoadError> {
        let wanted: Vec<String> = keep.iter().map(|(program, index)| format!("{program}-{index}")).collect();
        let is_containers = |name: &str| ContainerProgram::ALL.iter().any(|program| name.starts_with(program.name()));
        for name in self.hooks.pinned()?.into_iter().filter(|name| !wanted.contains(name) && !is_containers(name)) {
            tracing::info!(link = name, "leftover link detached");
            self.hooks.detach(&name)?;
        }
        Ok(())
    }

    fn attach_tc(&mut self, name: &'static str, interface: Interface<'_>) -> Result<(), LoadError> {
        let program: &mut SchedClassifier = self::program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(|source| LoadError::Program { program: name, source })?;
        }
        self.hooks.attach_tc(name, program, interface)
    }
}

/// aya-log's level below every message: the verifier then drops the code that logs.
const LOG_OFF: u8 = 0;

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing { program: name })?
        .try_into()
        .map_err(|source| LoadError::Program { program: name, source })
}
