//! Where outer packets are decapsulated: what `--decap` asks for, and what `auto` makes of the underlay interface.

use anyhow::{Result, bail};
use overlay_common::Encapsulation;
use rtnetlink::Handle;
use serde::Serialize;

use crate::{cli::Decap, link, underlay::Underlay};

/// What every driver takes that needs a packet to be in one page for XDP: 4096 less headroom and tail, in bytes.
const XDP_MTU: u32 = 3498;

/// Where outer packets are decapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecapPlace {
    /// In TC, after the kernel has merged what belongs together.
    Tc,
    /// In the driver's XDP, before the kernel builds a packet.
    Xdp,
    /// In the kernel's VXLAN device.
    Kernel,
}

/// A place, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DecapChoice {
    /// The place.
    pub place: DecapPlace,
    /// The reason, a part of a sentence.
    pub why: String,
}

impl DecapPlace {
    /// Its name, as `--decap` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::Kernel => "kernel",
        }
    }
}

impl DecapChoice {
    pub(super) fn new(place: DecapPlace, why: impl Into<String>) -> Self {
        Self { place, why: why.into() }
    }
}

/// Refuses a way to decapsulate that the encapsulation does not have.
///
/// # Errors
/// One line that names both.
pub fn check_decap(decap: Decap, encapsulation: Encapsulation) -> Result<()> {
    match (decap, encapsulation) {
        (Decap::Kernel, Encapsulation::Udp) => {
            bail!("--decap kernel: the kernel cannot decapsulate the udp backend; use tc or xdp")
        }
        _ => Ok(()),
    }
}

/// Chooses the place. `auto` is XDP where the driver runs it and gains by it: there, GRO works on the inner packets.
/// On a veth it would copy every packet and switch off the segmentation offload of the peer.
pub async fn choose_decap(handle: &Handle, asked: Decap, underlay: &Underlay) -> DecapChoice {
    let Underlay { name, ifindex, mtu, .. } = underlay;
    let place = match asked {
        Decap::Auto => {
            return choose(name, *mtu, is_veth(handle, *ifindex).await, link::has_native_xdp(*ifindex).await);
        }
        Decap::Tc => DecapPlace::Tc,
        Decap::Xdp => DecapPlace::Xdp,
        Decap::Kernel => DecapPlace::Kernel,
    };
    DecapChoice::new(place, format!("as --decap {} says", place.name()))
}

async fn is_veth(handle: &Handle, ifindex: u32) -> bool {
    link::is_veth(handle, ifindex).await.unwrap_or_default()
}

/// What `auto` means on an interface.
fn choose(name: &str, mtu: u32, is_veth: bool, native: Result<bool, link::XdpFeaturesError>) -> DecapChoice {
    let tc = |why| DecapChoice::new(DecapPlace::Tc, why);
    match native {
        _ if is_veth => tc(format!("{name} is a veth, where XDP is slower")),
        Ok(true) if mtu > XDP_MTU => tc(format!("{name} has native XDP, but its MTU is {mtu}, above {XDP_MTU}")),
        Ok(true) => DecapChoice::new(DecapPlace::Xdp, format!("{name} has native XDP")),
        Ok(false) => tc(format!("{name} has no native XDP")),
        Err(error) => {
            let error = anyhow::Error::from(error);
            tc(format!("whether {name} has native XDP is not known: {error:#}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_xdp_only_where_the_driver_runs_it_and_gains_by_it() {
        let place = |mtu, is_veth, native| choose("eth0", mtu, is_veth, Ok(native)).place;
        assert_eq!(place(1500, false, true), DecapPlace::Xdp);
        assert_eq!(place(1500, true, true), DecapPlace::Tc);
        assert_eq!(place(1500, false, false), DecapPlace::Tc);
        assert_eq!(place(XDP_MTU, false, true), DecapPlace::Xdp);
        assert_eq!(place(XDP_MTU + 1, false, true), DecapPlace::Tc);
    }
}
