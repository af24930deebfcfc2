//! What a socket puts into the headers of its packets, alike for both families.

use std::net::UdpSocket;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};

/// Gives what `socket` sends from now on this TTL, or hop limit.
///
/// # Errors
///
/// When the kernel refuses.
pub fn set_ttl(socket: &UdpSocket, ttl: u8) -> Result<()> {
    let (is_ipv4, ttl) = (socket.local_addr()?.is_ipv4(), ttl.into());
    let set =
        if is_ipv4 { setsockopt(socket, sockopt::Ipv4Ttl, &ttl) } else { setsockopt(socket, sockopt::Ipv6Ttl, &ttl) };
    Ok(set?)
}

/// Gives what `socket` sends from now on this TOS byte, or traffic class.
///
/// # Errors
///
/// When the kernel refuses.
pub fn set_tos(socket: &UdpSocket, tos: u8) -> Result<()> {
    let (is_ipv4, tos) = (socket.local_addr()?.is_ipv4(), tos.into());
    let set = if is_ipv4 {
        setsockopt(socket, sockopt::Ipv4Tos, &tos)
    } else {
        setsockopt(socket, sockopt::Ipv6TClass, &tos)
    };
    Ok(set?)
}
