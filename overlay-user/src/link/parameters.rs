//! The kernel parameters that an overlay device needs: its own, and that the node forwards.

use crate::sysctl::{Sysctl, SysctlError};

use super::LinkConfig;

/// Keeps the device `name` from sending anything by itself once it is up.
pub(super) fn silence(name: &str) -> Result<(), SysctlError> {
    let addr_gen_mode = Sysctl::ipv6_conf(name, "addr_gen_mode");
    if addr_gen_mode.exists() {
        addr_gen_mode.set("1")?;
    }
    Ok(())
}

/// Sets what the device's families need. A new device has the defaults' values, which may differ from those of `all`.
pub(super) fn set(name: &str, config: &LinkConfig) -> Result<(), SysctlError> {
    if config.ipv6.is_some() {
        for (parameter, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("forwarding", "1")] {
            Sysctl::ipv6_conf(name, parameter).set(value)?;
        }
    }
    // Answers may take a path that this node would not choose; strict checking of `all` must not drop them here.
    Sysctl::ipv4_conf(name, "rp_filter").set("2")?;
    Sysctl::ipv4_conf(name, "ignore_routes_with_linkdown").set("0")?;
    Sysctl::ipv4_conf(name, "forwarding").set("1")?;
    Ok(())
}

/// Lets `interface` take routes from router advertisements also when the node forwards, if it does so now: the kernel forgets
/// them otherwise, the default route among them.
///
/// # Errors
/// When `/proc/sys` cannot be written.
pub fn keep_advertised_routes(interface: &str) -> Result<(), SysctlError> {
    if let Some(accept_ra) = forgetful(interface)? {
        accept_ra.set("2")?;
        tracing::info!(
            interface,
            "accept_ra set to 2, as this node forwards and takes routes from router advertisements"
        );
    }
    Ok(())
}

/// Whether [`keep_advertised_routes`] would set something. Changes nothing.
///
/// # Errors
/// [`SysctlError`] where it would fail.
pub fn would_keep_advertised_routes(interface: &str) -> Result<bool, SysctlError> {
    forgetful(interface)?.map_or(Ok(false), |accept_ra| accept_ra.would_set("2"))
}

/// The parameter by which `interface` forgets its routes from router advertisements when the node forwards, if it does.
fn forgetful(interface: &str) -> Result<Option<Sysctl>, SysctlError> {
    let accept_ra = Sysctl::ipv6_conf(interface, "accept_ra");
    let forgets = accept_ra.exists() && accept_ra.get()? == "1";
    Ok(forgets.then_some(accept_ra))
}

/// Makes the node forward, as containers are reached that way.
pub(super) fn forward(config: &LinkConfig) -> Result<(), SysctlError> {
    if config.ipv4.is_some() && Sysctl::ipv4("ip_forward").set("1")? {
        tracing::info!("net.ipv4.ip_forward was off; switched on, as containers are reached by forwarding");
    }
    if config.ipv6.is_some() && Sysctl::ipv6_conf("all", "forwarding").set("1")? {
        tracing::info!(
            "net.ipv6.conf.all.forwarding was off; switched on, as containers are reached by forwarding: interfaces take \
             no more routes from router advertisements unless their accept_ra is 2"
        );
    }
    Ok(())
}
