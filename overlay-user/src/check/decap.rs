//! Where outer packets would be decapsulated.

use super::{Finding, xdp_features};
use crate::{cli::Decap, network::Backend, node, underlay::Underlay};

const CHECK: &str = "decap";

/// What drivers take at least while XDP needs a packet to be in one page: 4096 less headroom and tail.
const XDP_MTU: u32 = 3498;

pub(super) async fn check(decap: Decap, underlay: &Underlay, backend: Option<&Backend>) -> Finding {
    if let Some(backend) = backend
        && let Err(error) = node::check_decap(decap, backend.encapsulation())
    {
        return Finding::refused(CHECK, error, "leave --decap at auto");
    }
    let Underlay { name, ifindex, mtu, .. } = underlay;
    let native = xdp_features::is_native(*ifindex).await;
    if decap != Decap::Xdp {
        let place = if decap == Decap::Kernel { "in the kernel's VXLAN device, without fast path" } else { "in TC" };
        let driver = match native {
            Ok(true) => format!("{name} has native XDP, too"),
            Ok(false) => format!("{name} has no native XDP"),
            Err(_) => format!("whether {name} has native XDP is not known"),
        };
        return Finding::green(CHECK, format!("{place}; {driver}"));
    }
    match native {
        Ok(true) if *mtu > XDP_MTU => Finding::yellow(
            CHECK,
            format!("in XDP: {name} has it natively, but its MTU is {mtu}"),
            format!("lower it to {XDP_MTU} if the driver refuses, or leave --decap at auto"),
        ),
        Ok(true) => Finding::green(CHECK, format!("in XDP: {name} has it natively")),
        Ok(false) => Finding::red(
            CHECK,
            format!("--decap xdp: {name} has no native XDP"),
            "leave --decap at auto: decapsulating in TC is as fast",
        ),
        Err(error) => Finding::yellow(
            CHECK,
            format!("whether {name} has native XDP is not known: {:#}", anyhow::Error::from(error)),
            "if the agent refuses, leave --decap at auto",
        ),
    }
}

/// Where a node with this option decapsulates.
pub(super) const fn name(decap: Decap) -> &'static str {
    match decap {
        Decap::Auto | Decap::Tc => "tc",
        Decap::Xdp => "xdp",
        Decap::Kernel => "kernel",
    }
}
