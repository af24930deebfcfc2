//! What is attached, by an agent that may be gone: programs, and the constants that they were loaded with.

use std::{collections::BTreeMap, fs, path::PathBuf, rc::Rc, slice};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramInfo, loaded_programs},
};
use overlay_common::{Encapsulation, Program, Ticks};

use super::{LoadError, pinned::Pinned};
use crate::rundir::RunDir;

/// The length of a map's name in the kernel: what is longer is cut off.
const MAP_NAME: usize = 15;

/// A program that is attached by a pinned link, or by a filter and pinned itself.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Which it is.
    pub program: Program,
    /// Index of the interface.
    pub interface: u32,
    pub(super) pin: PathBuf,
    pub(super) is_link: bool,
    info: Rc<ProgramInfo>,
}

impl Attached {
    /// The kernel's number for this kind of program code: two loads of one build have the same.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.info.tag()
    }

    /// The kernel's number for this load.
    pub(super) fn id(&self) -> u32 {
        self.info.id()
    }

    /// Whether it tells what it does with real packets.
    pub(super) fn is_telling(&self) -> Result<bool, LoadError> {
        Ok(constant::<u8>(slice::from_ref(self), ".rodata.trace")?.is_some_and(|trace| trace != 0))
    }
}

/// What is attached by links pinned in `run_dir`.
///
/// # Errors
/// When nothing is, or the kernel does not tell.
pub fn attached(run_dir: &RunDir) -> Result<Vec<Attached>, LoadError> {
    let directory = run_dir.links();
    let unread = |source| LoadError::Pins { path: directory.clone(), source };
    // Others' programs come and go meanwhile: one that is gone when its turn comes is an error here.
    let programs: BTreeMap<u32, Rc<ProgramInfo>> =
        loaded_programs().flatten().map(|info| (info.id(), Rc::new(info))).collect();
    let mut attached = Vec::new();
    for entry in fs::read_dir(&directory).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((program, interface)) = parse(&name) else { continue };
        let (id, is_link) = match Pinned::read(&path) {
            Some(Pinned::Link(id)) => (id, true),
            // Without tcx.
            Some(Pinned::Program(id)) => (id, false),
            // The agent removes it, or attaches it again.
            Some(Pinned::Detached) | None => continue,
        };
        let Some(info) = programs.get(&id).map(Rc::clone) else { continue };
        attached.push(Attached { program, interface, pin: path, is_link, info });
    }
    if attached.is_empty() { Err(LoadError::Nothing { path: directory }) } else { Ok(attached) }
}

/// What the attached programs were loaded with: how packets travel, and how long approvals last (0 where no program asks).
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn loaded_with(attached: &[Attached]) -> Result<(Encapsulation, Ticks), LoadError> {
    let encapsulation = constant::<u8>(attached, ".rodata.encap")?;
    let flow_ttl = constant::<Ticks>(attached, ".rodata.flow_ttl")?;
    let encapsulation = match encapsulation {
        Some(encapsulation) if encapsulation == Encapsulation::Udp as u8 => Encapsulation::Udp,
        _ => Encapsulation::Vxlan,
    };
    Ok((encapsulation, flow_ttl.unwrap_or(0)))
}

/// The constant alone in `section` of the first program that has it.
fn constant<T: Pod>(attached: &[Attached], section: &str) -> Result<Option<T>, LoadError> {
    let name = &section.as_bytes()[..section.len().min(MAP_NAME)];
    for program in attached {
        for id in program.info.map_ids().map_err(query)?.unwrap_or_default() {
            let info = MapInfo::from_id(id).map_err(query)?;
            if info.name() == name {
                let map = Array::<_, T>::try_from(Map::Array(MapData::from_id(id).map_err(query)?)).map_err(query)?;
                return map.get(&0, 0).map(Some).map_err(query);
            }
        }
    }
    Ok(None)
}

/// The program and the index of the interface that a pin is named for.
pub(super) fn parse(pin: &str) -> Option<(Program, u32)> {
    let (name, interface) = pin.rsplit_once('-')?;
    let program = Program::all().find(|program| program.name() == name)?;
    Some((program, interface.parse().ok()?))
}

pub(super) fn query(error: impl std::error::Error) -> LoadError {
    LoadError::Query(error.to_string())
}
