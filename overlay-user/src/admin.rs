//! What an operator does to the datastore by hand: read and write the network config, list, reserve and release leases.

mod ours;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use comfy_table::{Table, presets};
use serde::Serialize;

pub use self::ours::Ours;
use crate::datastore::{Created, Datastore, DatastoreError, Entry, Lifetime, Replaced, Scope};
use crate::in_words::{joined, texts};
use crate::lease::{Backend, Lease, Node, SubnetKey, ValueError, Vtep};
use crate::network::{Address, ConfigError, NetworkConfig, Pool};

/// Why a command on the datastore failed. One line.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// The network config breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no network config yet.
    #[error("read the network config: there is none; write one with `overlay config set`")]
    NoConfig,
    /// The subnet may not be leased in this network.
    #[error("reserve {subnet}: not a subnet of the network config; it wants {wanted}")]
    Unfit {
        /// The subnet.
        subnet: SubnetKey,
        /// What subnets may be leased.
        wanted: String,
    },
    /// The address is none that a node can have.
    #[error("reserve {subnet}: {source}")]
    PublicIp {
        /// The subnet.
        subnet: SubnetKey,
        /// The rule that the address breaks.
        source: ValueError,
    },
    /// The subnet, or one that overlaps it, belongs to somebody else.
    #[error("reserve {subnet}: {taken} is leased by {owner}; release it first with `overlay lease release {taken}`")]
    Taken {
        /// The subnet.
        subnet: SubnetKey,
        /// The lease in the way.
        taken: SubnetKey,
        /// Its node.
        owner: String,
    },
    /// The node has another subnet, and would keep that one.
    #[error("reserve {subnet}: its node {public_ip} has {has}; stop its agent and release {has} first")]
    HasAnother {
        /// The subnet.
        subnet: SubnetKey,
        /// The node.
        public_ip: IpAddr,
        /// What it has.
        has: SubnetKey,
    },
    /// There is no such lease.
    #[error("release {0}: no such lease; `overlay lease list` shows all")]
    Unknown(SubnetKey),
    /// Somebody else wrote the lease at the same moment.
    #[error("{0}: the lease is being changed by somebody else; try again")]
    Busy(SubnetKey),
}

/// One lease as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseRow {
    /// The subnet, or the key if it names none.
    pub subnet: String,
    /// The node's underlay address over IPv4, if it has one.
    pub public_ip: Option<Ipv4Addr>,
    /// The same over IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How the node wants to receive packets.
    pub backend: Option<String>,
    /// The MAC address of the node's VTEP over IPv4, for vxlan.
    pub vtep_mac: Option<String>,
    /// The same over IPv6.
    pub ipv6_vtep_mac: Option<String>,
    /// Never expires.
    pub reserved: bool,
    /// Seconds until it expires if nobody renews it; absent for a reservation.
    pub expires_in: Option<u64>,
    /// This node's.
    pub ours: bool,
    /// Why every node skips it, if it does not parse.
    pub problem: Option<String>,
}

/// The network config as stored.
///
/// # Errors
/// When there is none, or the datastore fails.
pub async fn config_get(store: &dyn Datastore) -> Result<String, AdminError> {
    let config = store.config().await?.ok_or(AdminError::NoConfig)?;
    Ok(String::from_utf8_lossy(&config.value).into_owned())
}

/// Checks the network config in `json` and stores it, byte for byte.
///
/// # Errors
/// When it breaks a rule, or the datastore fails. Then nothing was written.
pub async fn config_set(store: &dyn Datastore, json: &[u8]) -> Result<NetworkConfig, AdminError> {
    let config = NetworkConfig::parse(json)?;
    store.put_config(json).await?;
    Ok(config)
}

/// All leases, in the order of their subnets; what does not parse comes last. `ours` says which are this node's.
///
/// # Errors
/// When the datastore fails.
pub async fn lease_list(store: &dyn Datastore, ours: &Ours) -> Result<Vec<LeaseRow>, AdminError> {
    let mut entries = store.snapshot(&Scope::Everything).await?.entries;
    let expiries = store.expiries().await?;
    entries.sort_by_cached_key(|entry| entry.key.parse::<SubnetKey>().map_err(|_| entry.key.clone()));
    Ok(entries.iter().map(|entry| row(entry, ours, &expiries)).collect())
}

fn row(entry: &Entry, ours: &Ours, expiries: &BTreeMap<String, SystemTime>) -> LeaseRow {
    let left = |at: &SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
    let nothing = LeaseRow {
        subnet: entry.key.clone(),
        public_ip: None,
        public_ipv6: None,
        backend: None,
        vtep_mac: None,
        ipv6_vtep_mac: None,
        reserved: entry.permanent,
        expires_in: expiries.get(&entry.key).map(left),
        ours: false,
        problem: None,
    };
    match Lease::parse(&entry.key, &entry.value) {
        Ok(lease) => {
            let ours = ours.holds(&lease);
            let node = lease.node;
            let mac = |vtep: Option<Vtep>| vtep.map(|vtep| vtep.mac.to_string());
            let (vtep_mac, ipv6_vtep_mac) = match &node.backend {
                Backend::Vxlan { v4, v6 } => (mac(*v4), mac(*v6)),
                _ => (None, None),
            };
            let public_ip = Some(node.public_ip).filter(|address| !address.is_unspecified());
            let (public_ipv6, backend) = (node.public_ipv6, Some(node.backend.name().to_owned()));
            LeaseRow { public_ip, public_ipv6, backend, vtep_mac, ipv6_vtep_mac, ours, ..nothing }
        }
        Err(error) => LeaseRow { problem: Some(error.to_string()), ..nothing },
    }
}

/// The rows as text for a terminal.
#[must_use]
pub fn lease_table(rows: &[LeaseRow]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["SUBNET", "NODE", "BACKEND", "VTEP MAC", "EXPIRES IN", "OURS", "PROBLEM"]);
    for row in rows {
        let dash = || "-".to_owned();
        table.add_row([
            row.subnet.clone(),
            lines(row.public_ip, row.public_ipv6),
            row.backend.clone().unwrap_or_else(dash),
            lines(row.vtep_mac.clone(), row.ipv6_vtep_mac.clone()),
            if row.reserved { "never".to_owned() } else { row.expires_in.map_or_else(dash, duration) },
            if row.ours { "yes" } else { "no" }.to_owned(),
            row.problem.clone().unwrap_or_else(dash),
        ]);
    }
    table.trim_fmt()
}

/// What there is over IPv4, and below it what there is over IPv6; a dash where there is nothing.
fn lines(ipv4: Option<impl ToString>, ipv6: Option<impl ToString>) -> String {
    let lines = texts(ipv4, ipv6);
    if lines.is_empty() { "-".to_owned() } else { lines.join("\n") }
}

/// Seconds in the two largest units that they fill.
fn duration(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{hours}h {minutes}m"),
    }
}

/// Makes `subnet` the one that the node with `public_ip` takes, now and for ever. A lease that the node holds turns into a
/// reservation under its feet; nothing that it sends or receives is disturbed.
///
/// # Errors
/// When the subnet does not fit the network config or is another node's, when the node has another subnet or no node can
/// have the address, or the datastore fails.
pub async fn lease_reserve(store: &dyn Datastore, subnet: SubnetKey, public_ip: IpAddr) -> Result<(), AdminError> {
    let (ipv4, ipv6) = match public_ip {
        IpAddr::V4(ipv4) => (ipv4, None),
        IpAddr::V6(ipv6) => (Ipv4Addr::UNSPECIFIED, Some(ipv6)),
    };
    let owner = Node { public_ip: ipv4, public_ipv6: ipv6, backend: Backend::Udp };
    let value = owner.to_value();
    Node::parse(&value).map_err(|source| AdminError::PublicIp { subnet, source })?;
    let config = NetworkConfig::parse(config_get(store).await?.as_bytes())?;
    if !crate::allocate::fits(&config, &subnet) {
        return Err(AdminError::Unfit { subnet, wanted: wanted(&config) });
    }
    let entries = store.snapshot(&Scope::Everything).await?.entries;
    let mut held = None;
    for entry in &entries {
        let Ok(taken) = entry.key.parse::<SubnetKey>() else { continue };
        let node = Node::parse(&entry.value);
        let is_its = node.as_ref().is_ok_and(|node| node.is_same_as(&owner));
        if taken == subnet && is_its {
            held = Some(entry);
        } else if is_its {
            return Err(AdminError::HasAnother { subnet, public_ip, has: taken });
        } else if taken.overlaps(&subnet) {
            let owner = node.map_or_else(|_| "nobody knows whom".to_owned(), |node| node.address().to_string());
            return Err(AdminError::Taken { subnet, taken, owner });
        }
    }
    let key = subnet.to_string();
    let done = match held {
        Some(entry) => {
            let replaced = store.replace(&key, entry.revision, &entry.value, Lifetime::Permanent).await?;
            matches!(replaced, Replaced::Yes(_))
        }
        None => matches!(store.create(&key, &value, Lifetime::Permanent).await?, Created::Yes(_)),
    };
    done.then_some(()).ok_or(AdminError::Busy(subnet))
}

/// Which subnets may be leased, for people.
fn wanted(config: &NetworkConfig) -> String {
    joined(texts(config.ipv4.map(of_pool), config.ipv6.map(of_pool)))
}

fn of_pool<A: Address>(pool: Pool<A>) -> String {
    format!("/{} from {} to {}", pool.subnet_len(), pool.min(), pool.max())
}

/// Deletes the lease or reservation of `subnet`. A node that lives and holds it takes it back at once.
///
/// # Errors
/// When there is none, or the datastore fails.
pub async fn lease_release(store: &dyn Datastore, subnet: SubnetKey) -> Result<(), AdminError> {
    let key = subnet.to_string();
    let entry = store.snapshot(&Scope::Lease(key.clone())).await?.entries.pop().ok_or(AdminError::Unknown(subnet))?;
    store.delete(&key, entry.revision).await?.then_some(()).ok_or(AdminError::Busy(subnet))
}
