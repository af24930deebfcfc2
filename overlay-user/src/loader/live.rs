//! [`Live`]: programs over the live maps that tell what they do with real packets.

use std::path::PathBuf;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use overlay_common::{Event, Pace, Program, Selection};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    LoadError,
    again::{Again, events_in, info},
    attached::{Attached, attached, query},
    exchange::Exchange,
    pinned::linked_program,
};
use crate::{maps, rundir::RunDir};

/// Room for what has not been read yet, in bytes.
const ROOM: u32 = 1 << 20;

/// Programs that tell what they do, ready to take the place of those that are attached.
pub struct Live {
    // Holds the programs.
    _ebpf: Ebpf,
    events: AsyncFd<RingBuf<MapData>>,
    pace: PerCpuArray<MapData, Pace>,
    exchanges: Vec<Exchange>,
    links: PathBuf,
}

/// What was not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Packets beyond the rate.
    pub suppressed: u64,
    /// Steps that had no room.
    pub lost: u64,
}

impl Live {
    /// Loads programs for all that are attached in `run_dir`. Attached programs that tell what they do already, left by a
    /// tracer that was killed with its guard, are replaced by plain ones before.
    ///
    /// # Errors
    /// When nothing is attached by links, what is attached is of another build, or the kernel refuses.
    pub fn load(run_dir: &RunDir, selection: Selection) -> Result<Self, LoadError> {
        let mut attached = plain(run_dir)?;
        if attached.iter().any(|attached| !attached.is_link) {
            return Err(LoadError::Filters);
        }
        attached.sort_by(|one, other| one.pin.cmp(&other.pin));
        let again = Again {
            run_dir,
            attached: &attached,
            live: &maps::NAMES,
            entries: &[("EVENTS", ROOM)],
            tell: Some(selection),
        };
        let (mut ebpf, _) = again.load(programs(&attached))?;
        let exchanges = exchanges(&ebpf, &attached)?;
        let mut take = |name: &str| ebpf.take_map(name).ok_or_else(|| LoadError::Query(format!("no map {name}")));
        let events = RingBuf::try_from(take("EVENTS")?).map_err(query)?;
        let pace = PerCpuArray::try_from(take("PACE")?).map_err(query)?;
        // SAFETY: the ring buffer owns its file descriptor and hands out the same one until it is dropped.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        let events = events.map_err(|error| LoadError::Log(error.into()))?;
        Ok(Self { _ebpf: ebpf, events, pace, exchanges, links: run_dir.links() })
    }

    /// Puts the programs into the places of the others.
    ///
    /// # Errors
    /// [`LoadError::Replaced`] when an agent has attached something there since they were loaded; those that were put
    /// before stay.
    pub fn put_in_place(&self) -> Result<(), LoadError> {
        for exchange in &self.exchanges {
            // Where there is no link any more, a container has gone.
            if !exchange.replace()? && linked_program(exchange.pin()).is_some() {
                return Err(LoadError::Replaced);
            }
        }
        Ok(())
    }

    /// Which program takes the place of which.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Looks whether the programs are where they were put, as far as those places are still there.
    ///
    /// # Errors
    /// [`LoadError::Replaced`] when an agent has attached something there, [`LoadError::Nothing`] when all places are gone.
    pub fn check_in_place(&self) -> Result<(), LoadError> {
        let mut are_gone = true;
        for exchange in &self.exchanges {
            match linked_program(exchange.pin()) {
                Some(id) if id != exchange.ids().1 => return Err(LoadError::Replaced),
                Some(_) => are_gone = false,
                None => {}
            }
        }
        if are_gone { Err(LoadError::Nothing { path: self.links.clone() }) } else { Ok(()) }
    }

    /// Waits for events, and returns all that are there.
    ///
    /// # Errors
    /// When the ring buffer fails.
    pub async fn wait(&mut self) -> Result<Vec<Event>, LoadError> {
        let mut readable = self.events.readable_mut().await.map_err(LoadError::Log)?;
        readable.clear_ready();
        Ok(events_in(readable.get_inner_mut()))
    }

    /// The events that are there now.
    pub fn events(&mut self) -> Vec<Event> {
        events_in(self.events.get_mut())
    }

    /// What was not told so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn left_out(&self) -> Result<LeftOut, LoadError> {
        let paces = self.pace.get(&0, 0).map_err(query)?;
        let add = |sum: LeftOut, pace: &Pace| LeftOut {
            suppressed: sum.suppressed + pace.suppressed,
            lost: sum.lost + pace.lost,
        };
        Ok(paces.iter().fold(LeftOut::default(), add))
    }
}

/// What is attached, once nothing that tells what it does is.
fn plain(run_dir: &RunDir) -> Result<Vec<Attached>, LoadError> {
    let all = attached(run_dir)?;
    let mut telling = Vec::new();
    for attached in &all {
        if attached.is_telling()? {
            telling.push(attached.clone());
        }
    }
    if telling.is_empty() {
        return Ok(all);
    }
    let again = Again { run_dir, attached: &telling, live: &maps::NAMES, entries: &[], tell: None };
    let (ebpf, _) = again.load(programs(&telling))?;
    for exchange in exchanges(&ebpf, &telling)? {
        exchange.replace()?;
    }
    attached(run_dir)
}

fn exchanges(ebpf: &Ebpf, attached: &[Attached]) -> Result<Vec<Exchange>, LoadError> {
    let exchange =
        |attached: &Attached| Exchange::hold(attached.pin.clone(), attached.id(), info(ebpf, attached.program)?.id());
    attached.iter().map(exchange).collect()
}

/// Each kind of program once.
fn programs(attached: &[Attached]) -> Vec<Program> {
    let mut programs: Vec<Program> = attached.iter().map(|attached| attached.program).collect();
    programs.sort_by_key(|program| *program as u8);
    programs.dedup();
    programs
}
