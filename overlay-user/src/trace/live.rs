//! `overlay trace --live`: what happens to real packets, told by programs that stand in the places of the attached ones.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, bail};
use overlay_common::{Selection, Tuple};

use super::{guard::Guard, lines::Lines};
use crate::{
    cli::{Output, Protocol},
    loader::Live,
    rundir::RunDir,
    signals::Signals,
};

/// How often it is looked at what was left out, and whether the programs still stand in their places.
const LOOK: Duration = Duration::from_secs(1);

/// Which packets to tell of; what is `None` may be anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: Option<u16>,
}

/// Tells what happens to the packets of `flow`, at most `rate` a second on each CPU, until a signal comes or nobody reads.
/// When this returns, and also if it never does, the programs from before are back in their places.
///
/// # Errors
/// When there is no data path, somebody else traces, an agent attaches programs meanwhile, or the kernel refuses.
pub(crate) async fn live(run_dir: &RunDir, flow: &Flow, rate: u32, output: Output) -> Result<()> {
    run_dir.existing_maps()?;
    let _lock = run_dir.lock_trace()?;
    let mut signals = Signals::new()?;
    let mut live = Live::load(run_dir, Selection::new(flow.tuple(), rate))?;
    let mut guard = Guard::start(live.exchanges())?;
    let mut lines = Lines::new(output, rate);
    let told = tell(&mut live, &mut guard, &mut lines, &mut signals).await;
    if let Err(error) = guard.dismiss() {
        tracing::warn!("{error:#}; the programs are put back without it");
        for exchange in live.exchanges() {
            exchange.restore()?;
        }
    }
    told?;
    lines.events(&live.events())?;
    lines.left_out(live.left_out()?)
}

/// Puts the programs in their places and prints what they tell.
async fn tell(live: &mut Live, guard: &mut Guard, lines: &mut Lines, signals: &mut Signals) -> Result<()> {
    live.put_in_place()?;
    eprintln!("tracing in {} places; Ctrl-C ends it", live.exchanges().len());
    let mut look = tokio::time::interval(LOOK);
    while lines.are_read() {
        tokio::select! {
            events = live.wait() => lines.events(&events?)?,
            _ = look.tick() => {
                lines.left_out(live.left_out()?)?;
                live.check_in_place()?;
                if !guard.lives() {
                    bail!("the guard of this trace has ended before it; trace again");
                }
            }
            () = signals.recv() => break,
        }
    }
    Ok(())
}

impl Flow {
    fn tuple(&self) -> Tuple {
        let protocol = match self.protocol {
            None => 0,
            Some(Protocol::Icmp) => libc::IPPROTO_ICMP,
            Some(Protocol::Tcp) => libc::IPPROTO_TCP,
            Some(Protocol::Udp) => libc::IPPROTO_UDP,
        };
        let end = |address: Option<Ipv4Addr>, port: Option<u16>| {
            (address.map_or([0; 4], |address| address.octets()), port.unwrap_or(0).to_be_bytes())
        };
        let source = end(self.source, self.source_port);
        Tuple::new(protocol as u8, source, end(self.destination, self.destination_port))
    }
}
