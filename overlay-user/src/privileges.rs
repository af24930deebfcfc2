//! [`Need`]: a capability that some work needs, asked for before anything is touched. Without one the kernel would refuse
//! half way, in words that name no capability.

use std::fmt;

use caps::{CapSet, Capability};

use crate::rundir::RunDir;

/// A capability, and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    capability: Capability,
    purpose: &'static str,
}

const DEVICES: Need =
    Need { capability: Capability::CAP_NET_ADMIN, purpose: "to set up devices, routes, rules and programs on them" };
const PROGRAMS: Need = Need { capability: Capability::CAP_BPF, purpose: "to load programs and make maps" };
const VERIFIER: Need =
    Need { capability: Capability::CAP_PERFMON, purpose: "for the verifier to take programs that read packets" };
const NOTICES: Need =
    Need { capability: Capability::CAP_NET_BROADCAST, purpose: "to hear of addresses inside containers" };
const IPTABLES: Need = Need { capability: Capability::CAP_NET_RAW, purpose: "for rules in legacy iptables" };
const BPFFS: Need = Need {
    capability: Capability::CAP_SYS_ADMIN,
    purpose: "to mount a bpffs below the run directory, where none is mounted yet",
};

/// What the agent needs, whatever its options. One more is needed only by files of other users, and asked for by the error
/// when such a file cannot be read: `CAP_DAC_READ_SEARCH`.
const AGENT: [Need; 5] = [DEVICES, PROGRAMS, VERIFIER, NOTICES, IPTABLES];

/// What the removal of an agent's data path needs: pins are files, and no program is loaded.
const TEARDOWN: [Need; 3] = [DEVICES, PROGRAMS, IPTABLES];

/// What this process may not do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Lacking(Vec<Need>);

/// Asks for what the agent needs with this run directory.
///
/// # Errors
/// [`Lacking`]: all that is missing.
pub fn require_for_agent(run_dir: &RunDir) -> Result<(), Lacking> {
    let mount = (!run_dir.is_on_bpffs()).then_some(BPFFS);
    require(AGENT.into_iter().chain(mount), has)
}

/// Asks for what a teardown needs. The right to unmount is none of it: without, the mount stays.
///
/// # Errors
/// [`Lacking`]: all that is missing.
pub fn require_for_teardown() -> Result<(), Lacking> {
    require(TEARDOWN, has)
}

/// Whether this process has a capability. One that is none of this kernel's is not had.
fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn require(needs: impl IntoIterator<Item = Need>, has: impl Fn(Capability) -> bool) -> Result<(), Lacking> {
    let lacking: Vec<Need> = needs.into_iter().filter(|need| !need.is_met(&has)).collect();
    if lacking.is_empty() { Ok(()) } else { Err(Lacking(lacking)) }
}

impl Need {
    fn is_met(&self, has: impl Fn(Capability) -> bool) -> bool {
        // CAP_BPF and CAP_PERFMON were split from CAP_SYS_ADMIN (Linux 5.8), which goes on standing for them.
        let split = matches!(self.capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
        has(self.capability) || split && has(Capability::CAP_SYS_ADMIN)
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacking: Vec<String> =
            self.0.iter().map(|Need { capability, purpose }| format!("{capability} ({purpose})")).collect();
        write!(f, "this process lacks {}; run it as root, or give it these capabilities", lacking.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking_with(held: &[Capability]) -> Option<String> {
        require(AGENT, |capability| held.contains(&capability)).err().map(|lacking| lacking.to_string())
    }

    #[test]
    fn all_that_is_missing_is_named_with_its_purpose_in_one_line() {
        let said =
            lacking_with(&[Capability::CAP_BPF, Capability::CAP_NET_BROADCAST, Capability::CAP_NET_RAW]).unwrap();
        assert_eq!(
            said,
            "this process lacks CAP_NET_ADMIN (to set up devices, routes, rules and programs on them), CAP_PERFMON (for the \
             verifier to take programs that read packets); run it as root, or give it these capabilities"
        );
    }

    #[test]
    fn the_right_to_everything_stands_for_the_rights_that_were_split_from_it() {
        let held = [
            Capability::CAP_SYS_ADMIN,
            Capability::CAP_NET_ADMIN,
            Capability::CAP_NET_BROADCAST,
            Capability::CAP_NET_RAW,
        ];
        assert_eq!(lacking_with(&held), None);
        assert!(lacking_with(&held[..3]).unwrap().contains("CAP_NET_RAW"));
    }
}
