//! `overlay trace`: what the data path would do with a packet, step by step, and why.
//!
//! ```text
//! Wanted -> packet -> journey -> loader::Tracer [the live maps] -> Event -> story -> Report
//! ```

mod journey;
mod kernel;
mod outer;
mod packet;
mod report;
mod story;

use anyhow::{Context as _, Result};

use self::{journey::Journey, kernel::Kernel, packet::Packet};
pub(crate) use self::{packet::Wanted, report::Report};
use crate::{
    loader::{self, Tracer},
    maps::{EndpointsMap, LocalNodeMap, Routes},
    rundir::RunDir,
};

/// Sends a made-up packet through the programs, over the live maps. Nothing that others see changes.
///
/// # Errors
/// When there is no data path, its programs are of another build, or the kernel refuses.
pub(crate) async fn made_up(run_dir: &RunDir, wanted: &Wanted) -> Result<Report> {
    let packet = Packet::make(wanted)?;
    let maps = run_dir.existing_maps()?;
    let attached = loader::attached(run_dir)?;
    let mut tracer = Tracer::load(run_dir, &attached)?;
    let node = LocalNodeMap::open(&maps)?.get()?;
    if let Some(flow) = packet.flow(node.in_subnet(wanted.source)) {
        tracer.remember(&maps, flow)?;
    }
    let journey = Journey {
        kind: tracer.encapsulation(),
        tracer,
        attached,
        kernel: Kernel::open()?,
        routes: Routes::open(&maps, node.subnet().1)?.all()?,
        endpoints: EndpointsMap::open(&maps)?.all()?,
        node,
    };
    journey.of(&packet).await.with_context(|| format!("trace {}", packet.describe()))
}
