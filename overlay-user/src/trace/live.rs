//! `overlay trace --live`: what happens to real packets, told by programs that stand in the places of the attached ones.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, bail};
use overlay_common::{Address as _, Selection, Tuple};

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
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: Option<u16>,
}

/// Tells what happens to the packets of `flow`, at most `rate` a second on each CPU, until a signal comes or nobody reads.
/// When this returns, and also if it never does, the programs from before are back in their places.
///
/// # Errors
/// When no packet can be of the flow, there is no data path, somebody else traces, an agent attaches programs meanwhile, or the kernel refuses.
pub(crate) async fn live(run_dir: &RunDir, flow: &Flow, rate: u32, output: Output) -> Result<()> {
    let selection = Selection::new(flow.tuple()?, rate);
    run_dir.existing_maps()?;
    let _lock = run_dir.lock_trace()?;
    let mut signals = Signals::new()?;
    let mut live = Live::load(run_dir, selection)?;
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
    /// The same for the programs, in which zero is anything.
    fn tuple(&self) -> Result<Tuple> {
        if let (Some(source), Some(destination)) = (self.source, self.destination)
            && source.is_ipv4() != destination.is_ipv4()
        {
            bail!("trace packets from {source} to {destination}: no packet has both; give two addresses of one family");
        }
        let is_ipv6 = self.source.or(self.destination).is_some_and(|address| address.is_ipv6());
        let protocol = match self.protocol {
            None => 0,
            Some(Protocol::Icmp) if is_ipv6 => libc::IPPROTO_ICMPV6,
            Some(Protocol::Icmp) => libc::IPPROTO_ICMP,
            Some(Protocol::Tcp) => libc::IPPROTO_TCP,
            Some(Protocol::Udp) => libc::IPPROTO_UDP,
        };
        let end = |address: Option<IpAddr>, port: Option<u16>| {
            let mapped = address.map_or([0; 16], |address| match address {
                IpAddr::V4(v4) => v4.octets().mapped(),
                IpAddr::V6(v6) => v6.octets().mapped(),
            });
            (mapped, port.unwrap_or(0).to_be_bytes())
        };
        let source = end(self.source, self.source_port);
        Ok(Tuple::new(protocol as u8, source, end(self.destination, self.destination_port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Flow =
        Flow { protocol: None, source: None, destination: None, source_port: None, destination_port: None };

    fn flow(source: &str, destination: &str) -> Flow {
        let [source, destination] = [source, destination].map(|text| Some(text.parse().unwrap()));
        Flow { source, destination, protocol: Some(Protocol::Icmp), ..ANY }
    }

    #[test]
    fn icmp_is_that_of_the_addresses() {
        let protocol = |flow: Flow| flow.tuple().unwrap().protocol();
        assert_eq!(protocol(flow("10.1.2.3", "10.1.4.5")), Some(1));
        assert_eq!(protocol(flow("fd00::1", "fd00::2")), Some(58));
        assert_eq!(protocol(Flow { source: None, ..flow("::", "fd00::2") }), Some(58));
        assert_eq!(protocol(Flow { protocol: Some(Protocol::Icmp), ..ANY }), Some(1));
    }

    #[test]
    fn what_is_not_given_is_anything_and_what_is_given_is_not() {
        assert_eq!(ANY.tuple().unwrap(), Tuple::default());
        let nobody = Flow { destination: Some("0.0.0.0".parse().unwrap()), ..ANY };
        assert_eq!(nobody.tuple().unwrap().destination().0, "0.0.0.0".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn addresses_of_two_families_are_refused_in_one_line() {
        let said = flow("10.1.2.3", "fd00::2").tuple().unwrap_err().to_string();
        assert!(said.starts_with("trace packets from 10.1.2.3 to fd00::2: ") && said.lines().count() == 1, "{said}");
    }
}
