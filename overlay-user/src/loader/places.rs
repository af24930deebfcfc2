//! [`Place`]s: where programs are to be, and whether they are there.
//!
//! The maps say what the overlay device and the underlay interface are, the pins what was attached to them and to containers'
//! veths. Neither says that it still is: a link that somebody has detached stays pinned, so the kernel is asked.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

use overlay_common::Program;

use super::{
    LoadError,
    attach::{direction, pins},
    attached::{parse, query},
    clsact::Clsact,
    pinned::Pinned,
};
use crate::{interface_name::interface_name, maps::LocalNodeMap, rundir::RunDir};

/// Where a program is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The program.
    pub program: Program,
    /// Index of the interface.
    pub index: u32,
    /// The interface's name; none when it is gone.
    pub interface: Option<String>,
    /// Whether the program is there.
    pub is_attached: bool,
}

/// The places that every packet passes: those on the overlay device and on the underlay interface.
///
/// # Errors
/// When maps or pins cannot be read.
pub fn node_places(run_dir: &RunDir) -> Result<Vec<Place>, LoadError> {
    read(run_dir, |program| !is_containers(program))
}

/// All places, those on containers' veths as well.
///
/// # Errors
/// When maps or pins cannot be read.
pub fn places(run_dir: &RunDir) -> Result<Vec<Place>, LoadError> {
    read(run_dir, |_| true)
}

fn read(run_dir: &RunDir, of: impl Fn(Program) -> bool) -> Result<Vec<Place>, LoadError> {
    let (maps, links) = (run_dir.existing_maps().map_err(query)?, run_dir.links());
    let node = LocalNodeMap::open(&maps).and_then(|map| map.get()).map_err(query)?;
    let mut required = BTreeSet::from([(Program::FromUnderlay, node.underlay_ifindex)]);
    for device in node.devices() {
        required.insert((Program::ToOverlay, device.ifindex));
        if node.vni() != 0 {
            required.insert((Program::Admit, device.ifindex));
        }
    }
    let pinned: BTreeSet<_> = pins(&links)?.into_iter().filter_map(|pin| parse(&pin)).collect();
    let clsact = Clsact::new(run_dir);
    let mut places = Vec::new();
    for &(program, index) in required.union(&pinned).filter(|(program, _)| of(*program)) {
        let interface = interface_name(index);
        if interface.is_none() && !required.contains(&(program, index)) {
            // What was attached to an interface that is gone is the agent's to forget.
            continue;
        }
        let name = program.name();
        let is_attached = match Pinned::read(&links.join(format!("{name}-{index}"))) {
            Some(Pinned::Link(_)) => true,
            Some(Pinned::Program(_)) => clsact.is_attached(index, direction(name))?,
            Some(Pinned::Detached) | None => false,
        };
        places.push(Place { program, index, interface, is_attached });
    }
    Ok(places)
}

const fn is_containers(program: Program) -> bool {
    matches!(program, Program::FromContainer | Program::ToContainer)
}

impl Place {
    /// Whether it is on a container's veth.
    #[must_use]
    pub const fn is_containers(&self) -> bool {
        is_containers(self.program)
    }
}

/// What is wrong with a place whose program is not there, and what to do.
impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let program = self.program.name();
        let role = match self.program {
            Program::ToOverlay | Program::Admit => "overlay device",
            Program::FromUnderlay | Program::XdpDecap => "underlay interface",
            Program::FromContainer | Program::ToContainer => "container's interface",
        };
        match &self.interface {
            Some(name) => write!(
                f,
                "{program} is not attached to {name}: a running agent attaches it again within seconds, else start it"
            ),
            None => write!(f, "the {role} is gone, and {program} with it: bring it back, the agent follows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_interface_or_with_what_that_was() {
        let place = |interface: Option<&str>| Place {
            program: Program::FromUnderlay,
            index: 2,
            interface: interface.map(str::to_owned),
            is_attached: false,
        };
        assert!(place(Some("eth0")).to_string().starts_with("from_underlay is not attached to eth0: "));
        assert!(place(None).to_string().starts_with("the underlay interface is gone, and from_underlay with it: "));
    }
}
