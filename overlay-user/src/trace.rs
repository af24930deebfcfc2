//! `overlay trace`: what the data path would do with a packet, step by step, and why.
//!
//! ```text
//! Wanted -> packet ----------\
//! file -> capture -> place --> journey -> loader::Tracer [the live maps] -> Event -> story -> Report
//! Flow -> loader::Live [in the places of the attached programs; the guard puts those back] -> Event -> story -> lines
//! ```

mod capture;
mod captured;
mod guard;
mod header;
mod journey;
mod kernel;
mod known;
mod lines;
mod live;
mod outer;
mod packet;
mod place;
mod report;
mod story;

use std::path::Path;

use anyhow::{Context as _, Result};

pub use self::guard::guard;
use self::{captured::Captured, journey::Journey, kernel::Kernel, known::Known, packet::Packet, place::Place};
pub(crate) use self::{
    live::{Flow, live},
    packet::Wanted,
    report::Report,
};
use crate::{
    loader::{self, Tracer},
    rundir::RunDir,
};

/// Sends a made-up packet through the programs, over the live maps. Nothing that others see changes.
///
/// # Errors
/// When there is no data path, its programs are of another build, or the kernel refuses.
pub(crate) async fn made_up(run_dir: &RunDir, wanted: &Wanted) -> Result<Report> {
    let packet = Packet::make(wanted)?;
    let mut journey = journey(run_dir)?;
    journey.remember(&packet, &run_dir.maps())?;
    journey.of(&packet).await.with_context(|| format!("trace {}", packet.describe()))
}

/// The same with a frame that was captured, on `interface` or where its addresses tell of.
///
/// # Errors
/// As above, and when the file has not exactly one packet, or nothing tells where that comes in.
pub(crate) async fn captured(run_dir: &RunDir, file: &Path, interface: Option<&str>) -> Result<Report> {
    let frame = capture::frame(file)?;
    let what = || format!("trace the packet in {}", file.display());
    let mut journey = journey(run_dir)?;
    let captured = Captured::new(frame, &journey.known.node, journey.known.kind);
    let place = match interface {
        Some(interface) => Place::on(interface, &journey),
        None => Place::guess(&captured, &journey),
    };
    let place = place.with_context(what)?;
    if let Some(carried) = captured.carried() {
        journey.remember(carried, &run_dir.maps())?;
    }
    journey.of_captured(&place, &captured).await.with_context(what)
}

/// All that a journey needs, read now.
fn journey(run_dir: &RunDir) -> Result<Journey> {
    let maps = run_dir.existing_maps()?;
    let attached = loader::attached(run_dir)?;
    let tracer = Tracer::load(run_dir, &attached)?;
    let known = Known::read(&maps, tracer.encapsulation())?;
    Ok(Journey { tracer, attached, kernel: Kernel::open()?, known })
}
