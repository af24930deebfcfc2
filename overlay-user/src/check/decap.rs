//! Where outer packets would be decapsulated.

use rtnetlink::Handle;

use super::Finding;
use crate::{
    cli::Decap,
    link,
    network::Backend,
    node::{self, DecapPlace},
    underlay::Underlay,
};

const CHECK: &str = "decap";

/// Says where, and returns it; where the agent would refuse, the place that was asked for.
pub(super) async fn check(
    handle: &Handle,
    asked: Decap,
    underlay: &Underlay,
    backend: Option<&Backend>,
) -> (Finding, DecapPlace) {
    let choice = node::choose_decap(handle, asked, underlay).await;
    let finding = match backend.map(|backend| node::check_decap(asked, backend.encapsulation())) {
        Some(Err(error)) => Finding::refused(CHECK, error, "leave --decap at auto"),
        _ if asked == Decap::Xdp => native_xdp(underlay).await,
        _ => {
            let place = match choice.place {
                DecapPlace::Tc => "in TC",
                DecapPlace::Xdp => "in XDP",
                DecapPlace::Kernel => "in the kernel's VXLAN device, without fast path",
            };
            Finding::green(CHECK, format!("{place}: {}", choice.why))
        }
    };
    (finding, choice.place)
}

/// Whether `--decap xdp` would work.
async fn native_xdp(underlay: &Underlay) -> Finding {
    let name = &underlay.name;
    match link::has_native_xdp(underlay.ifindex).await {
        Ok(true) => Finding::green(CHECK, format!("in XDP: {name} has it natively")),
        Ok(false) => Finding::red(
            CHECK,
            format!("--decap xdp: {name} has no native XDP"),
            "leave --decap at auto, which decapsulates in TC then",
        ),
        Err(error) => Finding::yellow(
            CHECK,
            format!("whether {name} has native XDP is not known: {:#}", anyhow::Error::from(error)),
            "if the agent refuses, leave --decap at auto",
        ),
    }
}
