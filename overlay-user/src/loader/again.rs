//! [`Again`]: the object once more, with what the attached programs were loaded with.

use std::borrow::Borrow;

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use overlay_common::{Encapsulation, Event, Program, Selection};

use super::{Attached, LOG_OFF, LoadError, OBJECT, attached};
use crate::rundir::RunDir;

/// How the object is loaded once more.
pub(super) struct Again<'a> {
    pub(super) run_dir: &'a RunDir,
    pub(super) attached: &'a [Attached],
    /// The maps that are the live ones; the others are its own.
    pub(super) live: &'a [&'a str],
    /// How many entries others have.
    pub(super) entries: &'a [(&'a str, u32)],
    /// Of which packets the programs tell what they do with; none: of no packet.
    pub(super) tell: Option<Selection>,
}

impl Again<'_> {
    /// Loads the object and those programs of it that are `wanted`.
    ///
    /// # Errors
    /// When the attached ones are of another build, or the kernel refuses.
    pub(super) fn load(&self, wanted: impl IntoIterator<Item = Program>) -> Result<(Ebpf, Encapsulation), LoadError> {
        let (encapsulation, flow_ttl) = attached::loaded_with(self.attached)?;
        let number = encapsulation as u8;
        let tell = u8::from(self.tell.is_some());
        let selection = self.tell.unwrap_or_default();
        let mut loader = EbpfLoader::new();
        loader.override_global("ENCAPSULATION", &number, true);
        loader.override_global("FLOW_TTL", &flow_ttl, true);
        loader.override_global("AYA_LOG_LEVEL", &LOG_OFF, true);
        loader.override_global("TRACE", &tell, true);
        loader.override_global("SELECTION", &selection, true);
        for name in self.live {
            loader.map_pin_path(name, self.run_dir.maps().join(name));
        }
        for (name, entries) in self.entries {
            loader.map_max_entries(name, *entries);
        }
        let mut ebpf = loader.load(OBJECT)?;
        for program in wanted {
            load_program(&mut ebpf, program)?;
        }
        for attached in self.attached {
            compare(&ebpf, attached)?;
        }
        Ok((ebpf, encapsulation))
    }
}

fn load_program(ebpf: &mut Ebpf, program: Program) -> Result<(), LoadError> {
    let name = program.name();
    let loaded = ebpf.program_mut(name).ok_or(LoadError::Missing { program: name })?;
    let result = if program == Program::XdpDecap {
        <&mut Xdp>::try_from(loaded).and_then(Xdp::load)
    } else {
        <&mut SchedClassifier>::try_from(loaded).and_then(SchedClassifier::load)
    };
    result.map_err(|source| LoadError::Program { program: name, source })
}

/// Whether the attached program is the same code as ours, which is loaded.
fn compare(ebpf: &Ebpf, attached: &Attached) -> Result<(), LoadError> {
    if info(ebpf, attached.program)?.tag() == attached.tag() {
        Ok(())
    } else {
        Err(LoadError::OtherBuild { program: attached.program.name() })
    }
}

/// What programs have told and nobody has read yet.
pub(super) fn events_in<T: Borrow<MapData>>(ring: &mut RingBuf<T>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(item) = ring.next() {
        events.extend(Event::from_bytes(&item));
    }
    events
}

/// What the kernel tells of a program that is loaded.
pub(super) fn info(ebpf: &Ebpf, program: Program) -> Result<aya::programs::ProgramInfo, LoadError> {
    let program = program.name();
    let loaded = ebpf.program(program).ok_or(LoadError::Missing { program })?;
    loaded.info().map_err(|source: ProgramError| LoadError::Program { program, source })
}
