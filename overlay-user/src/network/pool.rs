//! [`Pool`]: one address family's network and the subnets that it is split into.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::ConfigError;
use crate::json::Object;

/// The names that one address family's keys have in the network config.
#[derive(Debug)]
pub struct Keys {
    network: &'static str,
    subnet_len: &'static str,
    subnet_min: &'static str,
    subnet_max: &'static str,
    enabled: &'static str,
}

impl Keys {
    /// The key of the network.
    pub(crate) const fn network(&self) -> &'static str {
        self.network
    }

    /// The key of the subnets' length.
    pub(crate) const fn subnet_len(&self) -> &'static str {
        self.subnet_len
    }

    /// The keys of the first and the last subnet that may be leased.
    pub(crate) const fn bounds(&self) -> (&'static str, &'static str) {
        (self.subnet_min, self.subnet_max)
    }
}

/// An IPv4 or IPv6 address as a number, so that both families share their arithmetic.
pub trait Address: Copy + Ord + fmt::Display + fmt::Debug + FromStr + Send + Sync + 'static {
    /// The family's type for an address with a prefix length.
    type Network: Copy + Ord + fmt::Display + fmt::Debug + Send + Sync;
    /// Bits in an address: 32 or 128.
    const BITS: u8;
    /// The default subnet length, as long as it leaves room for four subnets.
    const DEFAULT_LEN: u8;
    /// What messages call an address of this family.
    const NAME: &'static str;
    /// What the network config calls this family's keys.
    const KEYS: Keys;

    /// The address as a number.
    fn number(self) -> u128;
    /// The address with this number; bits beyond the family's are cut.
    fn from_number(number: u128) -> Self;
    /// The network with this address and prefix length, which must be at most [`BITS`](Self::BITS).
    fn network(self, len: u8) -> Self::Network;
    /// Address and prefix length of a network.
    fn parts(network: Self::Network) -> (Self, u8);
}

impl Address for Ipv4Addr {
    type Network = Ipv4Network;
    const BITS: u8 = 32;
    const DEFAULT_LEN: u8 = 24;
    const NAME: &'static str = "an IPv4 address";
    const KEYS: Keys = Keys {
        network: "Network",
        subnet_len: "SubnetLen",
        subnet_min: "SubnetMin",
        subnet_max: "SubnetMax",
        enabled: "EnableIPv4 is true, so the network needs an IPv4 CIDR",
    };

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    #[expect(clippy::cast_possible_truncation, reason = "documented: bits beyond the family's are cut")]
    fn from_number(number: u128) -> Self {
        Self::from_bits(number as u32)
    }

    fn network(self, len: u8) -> Ipv4Network {
        Ipv4Network::new_checked(self, len).unwrap_or_else(|| self.into())
    }

    fn parts(network: Ipv4Network) -> (Self, u8) {
        (network.ip(), network.prefix())
    }
}

impl Address for Ipv6Addr {
    type Network = Ipv6Network;
    const BITS: u8 = 128;
    const DEFAULT_LEN: u8 = 64;
    const NAME: &'static str = "an IPv6 address";
    const KEYS: Keys = Keys {
        network: "IPv6Network",
        subnet_len: "IPv6SubnetLen",
        subnet_min: "IPv6SubnetMin",
        subnet_max: "IPv6SubnetMax",
        enabled: "EnableIPv6 is true, so the network needs an IPv6 CIDR",
    };

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn from_number(number: u128) -> Self {
        Self::from_bits(number)
    }

    fn network(self, len: u8) -> Ipv6Network {
        Ipv6Network::new_checked(self, len).unwrap_or_else(|| self.into())
    }

    fn parts(network: Ipv6Network) -> (Self, u8) {
        (network.ip(), network.prefix())
    }
}

/// A network and its subnets of one length. The subnets that may be leased lie from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool<A> {
    base: A,
    len: u8,
    subnet_len: u8,
    min: A,
    max: A,
}

impl<A: Address> Pool<A> {
    /// Reads one family's keys of the network config.
    pub(super) fn parse(object: &Object) -> Result<Self, ConfigError> {
        let (base, len) = network::<A>(object)?;
        let subnet_len = subnet_len::<A>(object, base, len)?;
        let (first, last) = (base.number(), base.number() | host_mask::<A>(len));
        let size = host_mask::<A>(subnet_len) + 1;
        let pool = Self {
            base,
            len,
            subnet_len,
            // The first subnet is skipped: its network address is also that of the whole network.
            min: bound(object, A::KEYS.subnet_min)?.unwrap_or(A::from_number(first + size)),
            max: bound(object, A::KEYS.subnet_max)?.unwrap_or(A::from_number(last - (size - 1))),
        };
        pool.check(A::KEYS.subnet_min, pool.min)?;
        pool.check(A::KEYS.subnet_max, pool.max)?;
        if pool.min > pool.max {
            let rule = format!("must not be above {} {}", A::KEYS.subnet_max, pool.max);
            return Err(ConfigError::rule(A::KEYS.subnet_min, &pool.min, rule));
        }
        Ok(pool)
    }

    fn check(&self, key: &'static str, bound: A) -> Result<(), ConfigError> {
        if !self.contains(bound) {
            let rule = format!("must be inside {} {}", A::KEYS.network, self.network());
            return Err(ConfigError::rule(key, &bound, rule));
        }
        if bound.number() & host_mask::<A>(self.subnet_len) != 0 {
            let rule = format!("must be a multiple of /{}, the first address of a subnet", self.subnet_len);
            return Err(ConfigError::rule(key, &bound, rule));
        }
        Ok(())
    }

    /// The whole network.
    #[must_use]
    pub fn network(&self) -> A::Network {
        self.base.network(self.len)
    }

    /// The prefix length that every subnet of the network has.
    #[must_use]
    pub const fn subnet_len(&self) -> u8 {
        self.subnet_len
    }

    /// The first address of the first subnet that may be leased.
    #[must_use]
    pub const fn min(&self) -> A {
        self.min
    }

    /// The first address of the last subnet that may be leased.
    #[must_use]
    pub const fn max(&self) -> A {
        self.max
    }

    /// How many subnets may be leased.
    #[must_use]
    pub fn count(&self) -> u128 {
        ((self.max.number() - self.min.number()) >> (A::BITS - self.subnet_len)) + 1
    }

    /// Whether `address` lies in the network.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        address.number() & !host_mask::<A>(self.len) == self.base.number()
    }

    /// Whether a node may lease the subnet with first address `first` and length `len`.
    #[must_use]
    pub fn admits(&self, first: A, len: u8) -> bool {
        len == self.subnet_len
            && first.number() & host_mask::<A>(len) == 0
            && (self.min..=self.max).contains(&first)
            && self.contains(first)
    }
}

/// The bits of an address behind a prefix of `len` bits.
pub(crate) fn host_mask<A: Address>(len: u8) -> u128 {
    let all = if A::BITS == 128 { u128::MAX } else { (1 << A::BITS) - 1 };
    all.checked_shr(len.into()).unwrap_or(0)
}

fn network<A: Address>(object: &Object) -> Result<(A, u8), ConfigError> {
    let key = A::KEYS.network;
    let text = object.string(key).map_err(|error| ConfigError::wrong_type(key, &error))?;
    let text = text.ok_or(ConfigError::Missing { key, rule: A::KEYS.enabled })?;
    let refused =
        || ConfigError::rule(key, &text, format!("must be {} with a prefix length, like {}", A::NAME, example::<A>()));
    let (address, len) = text.split_once('/').ok_or_else(refused)?;
    let address: A = address.parse().map_err(|_| refused())?;
    let len: u8 = len.parse().ok().filter(|&len| len <= A::BITS).ok_or_else(refused)?;
    // flannel takes 10.1.2.3/16 for 10.1.0.0/16; nodes of both kinds must agree.
    Ok((A::from_number(address.number() & !host_mask::<A>(len)), len))
}

fn example<A: Address>() -> &'static str {
    if A::BITS == 32 { "10.1.0.0/16" } else { "fd00:1::/48" }
}

/// The subnet length as configured, or the default for a network of `len` bits.
fn subnet_len<A: Address>(object: &Object, base: A, len: u8) -> Result<u8, ConfigError> {
    let key = A::KEYS.subnet_len;
    let given = object.number(key).map_err(|error| ConfigError::wrong_type(key, &error))?.unwrap_or(0);
    if given == 0 {
        if len > A::BITS - 4 {
            let rule = format!("must be /{} or larger", A::BITS - 4);
            return Err(ConfigError::rule(A::KEYS.network, &base.network(len), rule));
        }
        return Ok(A::DEFAULT_LEN.max(len + 2));
    }
    if given > u64::from(A::BITS - 2) {
        let rule = format!("must be at most {}, to leave two addresses for a bridge and a container", A::BITS - 2);
        return Err(ConfigError::rule(key, &given, rule));
    }
    if given < u64::from(len) + 2 {
        let rule = format!("must be at least {}, to split {} {} in four", len + 2, A::KEYS.network, base.network(len));
        return Err(ConfigError::rule(key, &given, rule));
    }
    u8::try_from(given).map_err(|_| ConfigError::rule(key, &given, "must be a prefix length"))
}

fn bound<A: Address>(object: &Object, key: &'static str) -> Result<Option<A>, ConfigError> {
    let text = object.string(key).map_err(|error| ConfigError::wrong_type(key, &error))?;
    text.map(|text| text.parse().map_err(|_| ConfigError::rule(key, &text, format!("must be {}", A::NAME)))).transpose()
}
