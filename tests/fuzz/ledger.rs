//! [`Ledger`]: what the counters must say by now.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use ipnetwork::IpNetwork;
use overlay_common::{Reason, Traffic};
use overlay_tests::{
    model::{Expected, Facts, Fate},
    programs::Programs,
};

/// What the model has counted so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    drops: Vec<u64>,
    traffic: BTreeMap<IpAddr, Traffic>,
}

impl Ledger {
    /// What the counters say.
    pub(crate) fn read(programs: &mut Programs, facts: &Facts) -> Result<Self> {
        let subnets = facts.routes.keys().map(IpNetwork::network);
        Ok(Self {
            drops: programs.drops()?.into_iter().map(|(_, count)| count).collect(),
            traffic: subnets.map(|subnet| Ok((subnet, traffic(programs, subnet)?))).collect::<Result<_>>()?,
        })
    }

    /// Counts what the model expects.
    pub(crate) fn add(&mut self, expected: &Expected) {
        if let Fate::Dropped(reason) | Fate::Answered(reason, _) = expected.fate {
            self.drops[reason.index() as usize] += 1;
        }
        if let Some((subnet, traffic)) = expected.counted {
            *self.traffic.entry(subnet).or_default() += traffic;
        }
    }

    /// Compares the counters that one packet was to move, and no others: those cost a system call each.
    pub(crate) fn moved(&self, programs: &mut Programs, expected: &Expected) -> Result<Option<String>> {
        if let Fate::Dropped(reason) | Fate::Answered(reason, _) = expected.fate
            && programs.dropped(reason)? != self.drops[reason.index() as usize]
        {
            return Ok(Some(format!("{reason:?} is not counted")));
        }
        let Some((subnet, _)) = expected.counted else { return Ok(None) };
        let (counted, wanted) = (traffic(programs, subnet)?, self.traffic[&subnet]);
        Ok((counted != wanted).then(|| format!("traffic with {subnet} is {counted:?}, not {wanted:?}")))
    }

    /// Compares every counter.
    pub(crate) fn whole(&self, programs: &mut Programs, facts: &Facts) -> Result<Option<String>> {
        let counted = Self::read(programs, facts)?;
        if counted == *self {
            return Ok(None);
        }
        let drops = Reason::ALL.iter().zip(counted.drops.iter().zip(&self.drops));
        let mut wrong: Vec<_> = drops
            .filter(|(_, (counted, wanted))| counted != wanted)
            .map(|(reason, (counted, wanted))| format!("{reason:?} counts {counted}, not {wanted}"))
            .collect();
        for (subnet, wanted) in &self.traffic {
            let counted = counted.traffic.get(subnet).copied().unwrap_or_default();
            if counted != *wanted {
                wrong.push(format!("traffic with {subnet} is {counted:?}, not {wanted:?}"));
            }
        }
        Ok(Some(wrong.join("; ")))
    }
}

/// What the programs have counted for a subnet.
fn traffic(programs: &mut Programs, subnet: IpAddr) -> Result<Traffic> {
    match subnet {
        IpAddr::V4(subnet) => programs.traffic(subnet.octets()),
        IpAddr::V6(subnet) => programs.traffic(subnet.octets()),
    }
}
