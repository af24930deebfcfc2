//! Taking a subnet.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ask::{self, Answer};
use super::{Claim, Holder};
use crate::allocate::{self, NetworkFull};
use crate::backoff::Backoff;
use crate::datastore::{Created, Datastore, DatastoreError, Entry, Lifetime, Replaced, Revision, Scope};
use crate::lease::{Backend, Lease, SubnetKey};
use crate::network::NetworkConfig;

/// How often a subnet that another node took under our nose is given up for another one.
const ATTEMPTS: u32 = 100;

/// Why no subnet could be taken. One line.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// Every subnet is leased.
    #[error(transparent)]
    Full(#[from] NetworkFull),
    /// Another node that is alive has our PublicIP.
    #[error(
        "PublicIP {public_ip} belongs to another node, which holds {subnet} and answers; choose this node's own address with --iface or --public-ip"
    )]
    Duplicate {
        /// The address that both have.
        public_ip: IpAddr,
        /// What the other one holds.
        subnet: SubnetKey,
    },
    /// Others were faster, every time.
    #[error("take a subnet: other nodes changed the leases first, {ATTEMPTS} times in a row")]
    Contended,
}

/// Takes a subnet: the lease with our PublicIP, else the previous subnet if it is free, else one by chance. A race that
/// is lost is run again with the new leases.
///
/// # Errors
/// [`AcquireError`]; a [transient](DatastoreError::is_transient) one of the datastore is worth another try.
pub async fn acquire(store: Arc<dyn Datastore>, config: &NetworkConfig, claim: &Claim) -> Result<Holder, AcquireError> {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    for _ in 0..ATTEMPTS {
        let snapshot = store.snapshot(&Scope::Everything).await?;
        let leases = Leases::sort(&snapshot.entries, config, claim);
        let attempt = Attempt { store: &*store, config, claim, leases };
        if let Some(((subnet, revision, lifetime), origin)) = attempt.run().await? {
            let lease = Lease { subnet, node: claim.node.clone() };
            let renew_margin = claim.renew_margin;
            let node = watch::Sender::new(claim.node.clone());
            let mut holder = Holder { store, lease, origin, revision, lifetime, expires: None, renew_margin, node };
            holder.holds(revision, lifetime);
            return Ok(holder);
        }
        tracing::debug!("another node was faster, choosing again");
        backoff.wait().await;
    }
    Err(AcquireError::Contended)
}

/// Where a subnet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From this lease, which is ours and is renewed.
    Renew(SubnetKey),
    /// From this lease, which carries our PublicIP: whether it has a holder is asked, then it is renewed or the agent
    /// refuses to start.
    Ask(SubnetKey),
    /// The subnet that `subnet.env` remembers is free.
    Previous(SubnetKey),
    /// Chosen by chance among those that are free.
    Chance(SubnetKey),
}

impl Origin {
    /// Why the subnet was taken, a part of a sentence.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Renew(_) => "our lease, renewed",
            Self::Ask(_) => "leased for our PublicIP, and no other holder has answered",
            Self::Previous(_) => "had before, by subnet.env, and free",
            Self::Chance(_) => "a free one by chance",
        }
    }
}

/// Says what [`acquire`] would do, and writes nothing.
///
/// # Errors
/// [`AcquireError`]: why [`acquire`] would fail.
pub async fn preview(store: &dyn Datastore, config: &NetworkConfig, claim: &Claim) -> Result<Origin, AcquireError> {
    let snapshot = store.snapshot(&Scope::Everything).await?;
    let attempt = Attempt { store, config, claim, leases: Leases::sort(&snapshot.entries, config, claim) };
    Ok(attempt.origin(attempt.choose()?))
}

/// What the listing means to us.
struct Leases<'a> {
    /// The lease with our PublicIP, the best one if there are several.
    mine: Option<(&'a Entry, Lease)>,
    /// Subnets that are taken: all other keys, whether their values make sense or not.
    others: Vec<SubnetKey>,
}

impl<'a> Leases<'a> {
    fn sort(entries: &'a [Entry], config: &NetworkConfig, claim: &Claim) -> Self {
        let mut mine: Vec<(&Entry, Lease)> = Vec::new();
        let mut others = Vec::new();
        for entry in entries {
            let Ok(subnet) = entry.key.parse::<SubnetKey>() else { continue };
            match Lease::parse(&entry.key, &entry.value) {
                Ok(lease) if lease.node.is_same_as(&claim.node) => mine.push((entry, lease)),
                _ => others.push(subnet),
            }
        }
        mine.sort_by_key(|(_, lease)| (!is_previous(claim, lease.subnet), !allocate::fits(config, &lease.subnet)));
        others.extend(mine.iter().skip(1).map(|(_, lease)| lease.subnet));
        Self { mine: mine.into_iter().next(), others }
    }
}

/// One try with one listing. `None` where the listing turned out to be old.
struct Attempt<'a> {
    store: &'a dyn Datastore,
    config: &'a NetworkConfig,
    claim: &'a Claim,
    leases: Leases<'a>,
}

type Taken = (SubnetKey, Revision, Lifetime);

impl Attempt<'_> {
    async fn run(&self) -> Result<Option<(Taken, Origin)>, AcquireError> {
        let subnet = self.choose()?;
        let taken = match self.keeps(subnet) {
            Some((entry, lease)) => self.take_over(entry, lease).await?,
            None => self.create(subnet).await?,
        };
        Ok(taken.map(|taken| (taken, self.origin(subnet))))
    }

    fn origin(&self, subnet: SubnetKey) -> Origin {
        match self.keeps(subnet) {
            Some((_, lease)) if self.must_ask(lease) => Origin::Ask(subnet),
            Some(_) => Origin::Renew(subnet),
            None if is_previous(self.claim, subnet) => Origin::Previous(subnet),
            None => Origin::Chance(subnet),
        }
    }

    fn choose(&self) -> Result<SubnetKey, NetworkFull> {
        let wanted = self.leases.mine.as_ref().map(|(_, lease)| &lease.subnet);
        allocate::choose(self.config, wanted, self.claim.previous, &self.leases.others, &mut rand::rng())
    }

    /// The lease with our PublicIP, if `subnet` is its subnet.
    fn keeps(&self, subnet: SubnetKey) -> Option<&(&Entry, Lease)> {
        self.leases.mine.as_ref().filter(|(_, lease)| lease.subnet == subnet)
    }

    /// Renews a lease that carries our PublicIP, unless somebody else is there to keep it.
    async fn take_over(&self, entry: &Entry, lease: &Lease) -> Result<Option<Taken>, AcquireError> {
        let mut revision = entry.revision;
        if self.must_ask(lease) {
            tracing::info!(subnet = %lease.subnet, public_ip = %lease.node.address(), "our PublicIP has a lease that we do not know: asking its holder");
            match ask::ask(self.store, entry, self.claim.answer_wait).await? {
                Answer::Silence(asked) => revision = asked,
                Answer::Changed => return Ok(None),
                Answer::Alive => {
                    let public_ip = lease.node.address();
                    return Err(AcquireError::Duplicate { public_ip, subnet: lease.subnet });
                }
            }
        }
        // A reservation stays one.
        let lifetime = if entry.permanent { Lifetime::Permanent } else { Lifetime::Ttl };
        match self.store.replace(&entry.key, revision, &self.claim.node.to_value(), lifetime).await? {
            Replaced::Yes(revision) => Ok(Some((lease.subnet, revision, lifetime))),
            Replaced::Changed(_) => Ok(None),
        }
    }

    async fn create(&self, subnet: SubnetKey) -> Result<Option<Taken>, AcquireError> {
        let key = subnet.to_string();
        let Created::Yes(revision) = self.store.create(&key, &self.claim.node.to_value(), Lifetime::Ttl).await? else {
            return Ok(None);
        };
        if self.is_shared(subnet).await? {
            self.store.delete(&key, revision).await?;
            return Ok(None);
        }
        self.drop_unfit().await?;
        Ok(Some((subnet, revision, Lifetime::Ttl)))
    }

    /// Whether another node has taken one of the subnets in `key` at the same time, under another key: with two of them the
    /// key alone does not keep others off each. The later of the two sees the other's here, and perhaps both do: whoever
    /// sees one chooses again.
    async fn is_shared(&self, key: SubnetKey) -> Result<bool, DatastoreError> {
        if key.subnets().count() < 2 {
            return Ok(false);
        }
        let snapshot = self.store.snapshot(&Scope::Everything).await?;
        // Our own from before, with one of these subnets, is about to go.
        let ours = [Some(key), self.leases.mine.as_ref().map(|(_, lease)| lease.subnet)];
        let others = snapshot.entries.iter().filter_map(|entry| entry.key.parse::<SubnetKey>().ok());
        Ok(others.filter(|other| !ours.contains(&Some(*other))).any(|other| other.overlaps(&key)))
    }

    /// Deletes the lease that we have just given up, because the network config has changed. Others would send to it.
    async fn drop_unfit(&self) -> Result<(), DatastoreError> {
        let Some((entry, _)) = self.leases.mine.as_ref().filter(|(entry, _)| !entry.permanent) else { return Ok(()) };
        let deleted = self.store.delete(&entry.key, entry.revision).await?;
        tracing::info!(lease = entry.key, deleted, "our old lease no longer fits the network config");
        Ok(())
    }

    /// Whether somebody else may be there to keep a lease with our PublicIP.
    fn must_ask(&self, lease: &Lease) -> bool {
        !self.is_known_to_be_ours(lease) && self.may_have_a_holder(lease)
    }

    fn is_known_to_be_ours(&self, lease: &Lease) -> bool {
        let drawn = matches!(lease.node.backend, Backend::Vxlan { .. });
        is_previous(self.claim, lease.subnet) || (drawn && lease.node.backend == self.claim.node.backend)
    }

    fn may_have_a_holder(&self, lease: &Lease) -> bool {
        lease.node.backend.name() == self.claim.node.backend.name()
    }
}

/// Whether `subnet.env` names the subnet.
fn is_previous(claim: &Claim, subnet: SubnetKey) -> bool {
    let v4 = claim.previous.v4.is_some_and(|net| net.network() == subnet.v4.ip() && net.prefix() == subnet.v4.prefix());
    let v6 = claim.previous.v6.zip(subnet.v6);
    v4 || v6.is_some_and(|(net, subnet)| net.network() == subnet.ip() && net.prefix() == subnet.prefix())
}
