//! What netfilter does with overlay traffic: masquerading towards the outside, and acceptance in FORWARD.
//!
//! Masquerading (`--ip-masq`) is one nftables table of ours per address family, named like the overlay device and replaced
//! in one transaction; the traffic it is about is listed in `masquerade/nat.rs`. Accepting forwarded traffic
//! (`--iptables-forward-rules`) cannot be done in a table of ours: an accept there does not undo a drop in another
//! chain at the same hook, and Docker sets the policy of iptables' FORWARD chain to DROP. So that rule goes into
//! iptables' own chain, `masquerade/forward.rs`.
//!
//! Whoever flushes the rule set takes our rules with it. [`TrafficRules::keep`] listens to the kernel's notices of such
//! changes and puts back what is missing, without looking when nothing happens.

mod family;
mod forward;
mod iptables;
mod monitor;
mod nat;
mod native;

use std::io;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nftables::helper::NftablesError;

pub(crate) use family::Family;
use monitor::Monitor;

use crate::network::Range;

/// How long to let changes settle before looking: a firewall that reloads makes many at once.
const SETTLE: Duration = Duration::from_millis(200);

/// How often iptables' legacy tables are looked at: the kernel gives no notice of changes in them.
const LEGACY_INTERVAL: Duration = Duration::from_secs(30);

/// Which rules there have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesConfig {
    /// Name of the overlay device, and so of our table: `overlay.1`.
    pub name: String,
    /// The IPv4 addresses of the overlay, if it has any.
    pub ipv4: Option<Range<Ipv4Network>>,
    /// The IPv6 addresses of the overlay, if it has any.
    pub ipv6: Option<Range<Ipv6Network>>,
    /// How to masquerade; none: not at all, and rules left over from an earlier run are removed.
    pub masquerade: Option<Masquerade>,
    /// Whether forwarded overlay traffic is accepted in iptables' FORWARD chain.
    pub forward: bool,
}

/// How to masquerade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masquerade {
    /// Whether source ports are drawn at random, so that two flows seldom race for one
    /// (off with `--ip-masq-fully-random-disable`).
    pub random_fully: bool,
}

/// Why the rules could not be set or removed.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A program is missing.
    #[error("run {program}: not found; install the package {package}")]
    Missing {
        /// The program.
        program: String,
        /// The package that usually has it.
        package: &'static str,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program has refused.
    #[error("{action}: {program} says: {said}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The program.
        program: String,
        /// Its first line of complaint.
        said: String,
    },
    /// A program has answered something that cannot be read.
    #[error("{action}: {program} answers what is no rule set")]
    Unreadable {
        /// What was tried.
        action: &'static str,
        /// The program.
        program: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The kernel's notices cannot be had.
    #[error("listen for changes of nftables rules")]
    Monitor(#[source] io::Error),
}

/// Our rules, and what of them is known to be in the kernel.
#[derive(Debug)]
pub struct TrafficRules {
    config: RulesConfig,
    families: Vec<FamilyRules>,
}

/// The rules of one address family.
#[derive(Debug)]
struct FamilyRules {
    family: Family,
    range: Range<IpNetwork>,
    /// Our table as `nft` lists it right after we have set it; handles included, so a rule replaced by an equal one
    /// counts as changed.
    installed: Option<String>,
}

impl FamilyRules {
    async fn ensure(&mut self, config: &RulesConfig) -> Result<bool, RulesError> {
        let masquerade = self.ensure_masquerade(config).await?;
        let accepted = config.forward.then_some(self.range);
        Ok(masquerade | forward::ensure(self.family, &config.name, accepted).await?)
    }

    async fn ensure_masquerade(&mut self, config: &RulesConfig) -> Result<bool, RulesError> {
        let (family, name) = (self.family, config.name.as_str());
        let Some(masquerade) = config.masquerade else {
            return nat::remove(family, name).await;
        };
        let present = nat::list(family, name).await?;
        if present.is_some() && present == self.installed {
            return Ok(false);
        }
        nat::replace(family, name, self.range, masquerade).await?;
        self.installed = nat::list(family, name).await?;
        Ok(true)
    }
}

impl TrafficRules {
    /// Rules that are not in the kernel yet.
    #[must_use]
    pub fn new(config: RulesConfig) -> Self {
        let ranges = [config.ipv4.map(Range::of_any_family), config.ipv6.map(Range::of_any_family)];
        let rules = |range: Range<_>| FamilyRules { family: Family::of(range.network), range, installed: None };
        Self { families: ranges.into_iter().flatten().map(rules).collect(), config }
    }

    /// Puts the rules in place where they are not, and says whether anything had to be done.
    ///
    /// # Errors
    /// [`RulesError`]
    pub async fn ensure(&mut self) -> Result<bool, RulesError> {
        let mut changed = false;
        for rules in &mut self.families {
            changed |= rules.ensure(&self.config).await?;
        }
        Ok(changed)
    }

    /// Removes the rules of the address families that the overlay does not have (any more), and says whether there were any.
    ///
    /// # Errors
    /// [`RulesError`]
    pub async fn remove_unused(&self) -> Result<bool, RulesError> {
        let mut removed = false;
        for family in Family::ALL {
            if !self.families.iter().any(|rules| rules.family == family) {
                removed |= remove_family(family, &self.config.name).await?;
            }
        }
        Ok(removed)
    }

    /// Puts the rules in place and puts back what others take away, until `ended`. Then no `nft` of ours runs any more.
    ///
    /// # Errors
    /// [`RulesError::Monitor`] when the kernel's notices cannot be had. Rules that cannot be restored are reported
    /// in the log and tried again at the next notice.
    pub async fn keep(&mut self, mut ended: impl Future + Unpin) -> Result<(), RulesError> {
        let families: Vec<_> = self.families.iter().map(|rules| rules.family).collect();
        let mut monitor = Monitor::new(&self.config.name, families.clone())?;
        loop {
            // Before the first notice too: something may have changed before there was somebody to listen.
            match self.ensure().await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(table = self.config.name, "rules put in place; others had changed theirs");
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "rules not put in place");
                }
            }
            tokio::select! {
                _ = &mut ended => return Ok(()),
                changed = wait_for_change(&mut monitor, &families) => changed?,
            }
        }
    }
}

/// Returns when the rules are to be looked at again.
async fn wait_for_change(monitor: &mut Monitor, families: &[Family]) -> Result<(), RulesError> {
    loop {
        tokio::select! {
            notice = monitor.wait() => {
                notice?;
                tokio::time::sleep(SETTLE).await;
                monitor.drain();
                return Ok(());
            }
            () = tokio::time::sleep(LEGACY_INTERVAL) => if forward::legacy_in_use(families) {
                return Ok(());
            },
        }
    }
}

/// Removes all rules that belong to the overlay device `name`, and says whether there were any.
///
/// # Errors
/// [`RulesError`]; what can be removed is removed all the same.
pub async fn remove(name: &str) -> Result<bool, RulesError> {
    let [ipv4, ipv6] = Family::ALL;
    let (ipv4, ipv6) = (remove_family(ipv4, name).await, remove_family(ipv6, name).await);
    Ok(ipv4? | ipv6?)
}

async fn remove_family(family: Family, name: &str) -> Result<bool, RulesError> {
    if !family.exists() {
        return Ok(false);
    }
    let masquerade = nat::remove(family, name).await;
    let forward = forward::ensure(family, name, None).await;
    Ok(masquerade? | forward?)
}

/// All rules of nftables as JSON, as `nft` lists them; those of iptables on top of it included.
///
/// # Errors
/// [`RulesError`]
pub async fn nftables_rules() -> Result<String, RulesError> {
    Ok(nat::list_with(&["list", "ruleset"]).await?.unwrap_or_default())
}

/// What `iptables -S` prints of a family's table `filter`, by each implementation that is in use here and can be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IptablesRules {
    /// With tables of its own in the kernel.
    pub legacy: Option<String>,
    /// On top of nftables.
    pub nft: Option<String>,
}

/// The rules of a family in iptables, or ip6tables, without making any table.
///
/// # Errors
/// [`RulesError`]
pub(crate) async fn iptables_rules(family: Family) -> Result<IptablesRules, RulesError> {
    forward::filter_rules(family).await
}

/// The error of an `nft` run, in one line.
fn nft_error(action: &'static str) -> impl FnOnce(NftablesError) -> RulesError {
    move |error| match error {
        NftablesError::NftExecution { program, inner } => not_run(&program.to_string_lossy(), "nftables", inner),
        NftablesError::NftFailed { program, stderr, .. } => refused(action, &program.to_string_lossy(), &stderr),
        NftablesError::NftInvalidJson(source) => RulesError::Unreadable { action, program: "nft".to_owned(), source },
        NftablesError::NftOutputEncoding { program, inner } => RulesError::Run {
            program: program.to_string_lossy().into_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, inner),
        },
    }
}

fn not_run(program: &str, package: &'static str, source: io::Error) -> RulesError {
    match source.kind() {
        io::ErrorKind::NotFound => RulesError::Missing { program: program.to_owned(), package },
        _ => RulesError::Run { program: program.to_owned(), source },
    }
}

fn refused(action: &'static str, program: &str, stderr: &str) -> RulesError {
    let said = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned();
    RulesError::Refused { action, program: program.to_owned(), said }
}
