//! [`Backend`]: how packets travel between nodes, as the network config says it.

use overlay_common::Encapsulation;

use super::ConfigError;
use crate::json::Object;

const UDP_PORT: u16 = 8285;
/// The port of Linux's VXLAN devices, older than the registered 4789; flannel leaves it to the kernel.
const VXLAN_PORT: u16 = 8472;
const MAX_VNI: u64 = (1 << 24) - 1;
/// IPv4's smallest MTU, 68, and the overhead of VXLAN over IPv4.
const MIN_MTU: u64 = 68 + 50;

/// How packets travel between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The inner packet is the UDP payload.
    Udp {
        /// The UDP port on every node.
        port: u16,
    },
    /// VXLAN.
    Vxlan {
        /// The UDP port on every node.
        port: u16,
        /// The VXLAN network number, 24 bits.
        vni: u32,
        /// Nodes that share a link route to each other without encapsulation.
        direct_routing: bool,
        /// The underlay's MTU in bytes, to use instead of the interface's.
        mtu: Option<u16>,
        /// flannel's `Learning`: the kernel device learns MAC addresses from packets. We never need it.
        learning: bool,
    },
}

impl Backend {
    /// The name that the network config and leases give it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "udp",
            Self::Vxlan { .. } => "vxlan",
        }
    }

    /// The VXLAN network number; 0 for other encapsulations. It also numbers the overlay device.
    #[must_use]
    pub const fn vni(&self) -> u32 {
        match *self {
            Self::Udp { .. } => 0,
            Self::Vxlan { vni, .. } => vni,
        }
    }

    /// The UDP port on every node.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match *self {
            Self::Udp { port } | Self::Vxlan { port, .. } => port,
        }
    }

    /// Whether nodes that share a link route to each other without encapsulation.
    #[must_use]
    pub const fn direct_routing(&self) -> bool {
        matches!(self, Self::Vxlan { direct_routing: true, .. })
    }

    /// What encap adds to a packet.
    #[must_use]
    pub const fn encapsulation(&self) -> Encapsulation {
        match self {
            Self::Udp { .. } => Encapsulation::Udp,
            Self::Vxlan { .. } => Encapsulation::Vxlan,
        }
    }

    /// Reads the key `Backend` of the network config.
    pub(super) fn parse(config: &Object) -> Result<Self, ConfigError> {
        if !config.has("Backend") {
            return Ok(Self::Udp { port: UDP_PORT });
        }
        let missing = || ConfigError::Missing { key: "Backend.Type", rule: "a Backend needs a Type, udp or vxlan" };
        let backend = config.object("Backend").map_err(|error| ConfigError::wrong_type("Backend", &error))?;
        let backend = backend.ok_or_else(missing)?;
        let name = backend.string("Type").map_err(|error| ConfigError::wrong_type("Backend.Type", &error))?;
        let name = name.filter(|name| !name.is_empty()).ok_or_else(missing)?;
        match name.to_ascii_lowercase().as_str() {
            "udp" => Ok(Self::Udp { port: port(&backend, UDP_PORT)? }),
            "vxlan" => vxlan(&backend),
            _ => Err(ConfigError::rule("Backend.Type", &name, "must be udp or vxlan")),
        }
    }
}

fn vxlan(backend: &Object) -> Result<Backend, ConfigError> {
    if flag(backend, "GBP", "Backend.GBP")? {
        let rule = "must be false: group policy bits in the VXLAN header are not supported";
        return Err(ConfigError::rule("Backend.GBP", &true, rule));
    }
    Ok(Backend::Vxlan {
        port: port(backend, VXLAN_PORT)?,
        vni: number(backend, "VNI", "Backend.VNI", MAX_VNI)?.unwrap_or(1),
        direct_routing: flag(backend, "DirectRouting", "Backend.DirectRouting")?,
        mtu: mtu(backend)?,
        learning: flag(backend, "Learning", "Backend.Learning")?,
    })
}

fn port(backend: &Object, default: u16) -> Result<u16, ConfigError> {
    let port = number(backend, "Port", "Backend.Port", u16::MAX.into())?;
    Ok(port.filter(|&port| port != 0).unwrap_or(default))
}

fn mtu(backend: &Object) -> Result<Option<u16>, ConfigError> {
    let mtu: Option<u16> = number(backend, "MTU", "Backend.MTU", u16::MAX.into())?;
    match mtu {
        Some(mtu) if mtu != 0 && u64::from(mtu) < MIN_MTU => {
            let rule = format!("must be 0 for the interface's MTU, or from {MIN_MTU} to {}", u16::MAX);
            Err(ConfigError::rule("Backend.MTU", &mtu, rule))
        }
        mtu => Ok(mtu.filter(|&mtu| mtu != 0)),
    }
}

fn number<T: TryFrom<u64>>(object: &Object, name: &str, key: &'static str, max: u64) -> Result<Option<T>, ConfigError> {
    let Some(number) = object.number(name).map_err(|error| ConfigError::wrong_type(key, &error))? else {
        return Ok(None);
    };
    let refused = || ConfigError::rule(key, &number, format!("must be at most {max}"));
    if number > max {
        return Err(refused());
    }
    T::try_from(number).map(Some).map_err(|_| refused())
}

fn flag(object: &Object, name: &str, key: &'static str) -> Result<bool, ConfigError> {
    Ok(object.bool(name).map_err(|error| ConfigError::wrong_type(key, &error))?.unwrap_or(false))
}
