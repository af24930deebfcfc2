//! The ground that subjects are measured on: what the underlay is like, and which CPU does what.

use std::{collections::BTreeSet, fmt, time::Duration};

use anyhow::Result;
use overlay_tests::{
    netns::Netns,
    node::UNDERLAY_DEVICE,
    process::{self, wait_for},
};

use crate::cpu::{self, Cpu};

/// How long the kernel may take to start a thread.
const LIMIT: Duration = Duration::from_secs(5);

/// What a card without TSO lacks, be the outer UDP checksum filled in or not.
const SEGMENTATION: &[&str] =
    &["tso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-udp-segmentation"];

/// What the interfaces between the nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underlay {
    /// A veth as it is: super-packets of up to 64 KiB cross it whole, which no wire does.
    Gso,
    /// Like a plain network card: packets of MTU size cross it, the receiver merges them (GRO).
    Nic,
}

/// Which CPUs do the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Everything on one CPU: the rate is one over the cost of the whole path.
    One,
    /// One for each node with its container.
    Two,
}

/// Underlay and CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ground {
    /// The underlay.
    pub(crate) underlay: Underlay,
    /// The CPUs.
    pub(crate) layout: Layout,
}

/// All of them. Beds are carried from one to the next in this order, and [`Ground::prepare`] knows no way back.
pub(crate) const GROUNDS: [Ground; 4] = [
    Ground { underlay: Underlay::Gso, layout: Layout::One },
    Ground { underlay: Underlay::Gso, layout: Layout::Two },
    Ground { underlay: Underlay::Nic, layout: Layout::One },
    Ground { underlay: Underlay::Nic, layout: Layout::Two },
];

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gso => "gso",
            Self::Nic => "nic",
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::Two => "two",
        })
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.underlay, self.layout)
    }
}

impl Layout {
    /// The CPUs of the first and of the second node, of the two that there are.
    pub(crate) const fn cpus(self, two: [Cpu; 2]) -> [Cpu; 2] {
        match self {
            Self::One => [two[1]; 2],
            Self::Two => two,
        }
    }
}

impl Ground {
    /// Makes the underlay between `nodes` be like this.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn prepare(self, nodes: &[Netns; 2], two: [Cpu; 2]) -> Result<()> {
        if self.underlay == Underlay::Nic {
            for node in nodes {
                // Software GSO stays on, as it is on a card without TSO: packets are cut at the last moment.
                node.offload(UNDERLAY_DEVICE, SEGMENTATION, false)?;
            }
        }
        for (node, cpu) in nodes.iter().zip(self.layout.cpus(two)) {
            match (self.underlay, self.layout) {
                // What the sender's CPU would do in its softirq is handed to the receiving node's.
                (Underlay::Gso, Layout::Two) => steer(node, Some(cpu))?,
                (Underlay::Gso, Layout::One) => steer(node, None)?,
                (Underlay::Nic, Layout::One) => {
                    steer(node, None)?;
                    node.offload(UNDERLAY_DEVICE, &["gro"], true)?;
                }
                (Underlay::Nic, Layout::Two) => {
                    steer(node, None)?;
                    node.offload(UNDERLAY_DEVICE, &["gro"], true)?;
                    poll_on(node, cpu)?;
                }
            }
        }
        Ok(())
    }
}

/// Receive packet steering: what the underlay interface of `node` receives is handled on `cpu`; none: where it was
/// sent.
fn steer(node: &Netns, cpu: Option<Cpu>) -> Result<()> {
    let mask = cpu.map_or(0, |cpu| 1_u128 << cpu);
    // Words of 32 bits, separated by commas.
    let words: Vec<_> = (0..4).rev().map(|word| format!("{:x}", (mask >> (32 * word)) as u32)).collect();
    let words = words.join(",");
    let mask = words.trim_start_matches(['0', ',']);
    let mask = if mask.is_empty() { "0" } else { mask };
    node.device_setting(UNDERLAY_DEVICE, "queues/rx-0/rps_cpus", mask)
}

/// A veth that does GRO polls, by default on the sender's CPU; here a thread of the kernel polls, on `cpu`, before
/// any other thread there: as the softirq would that it stands for.
fn poll_on(node: &Netns, cpu: Cpu) -> Result<()> {
    let before = poll_threads()?;
    node.device_setting(UNDERLAY_DEVICE, "threaded", "1")?;
    let new = || {
        let new: Vec<_> = poll_threads()?.difference(&before).copied().collect();
        Ok((!new.is_empty()).then_some(new))
    };
    let new = wait_for("the kernel's thread that polls", LIMIT, new)?;
    for thread in new {
        cpu::pin(thread, cpu)?;
        process::output(process::command("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))?;
    }
    Ok(())
}

/// The kernel's threads that poll underlay interfaces, of all namespaces.
fn poll_threads() -> Result<BTreeSet<i32>> {
    cpu::threads("/proc", &format!("napi/{UNDERLAY_DEVICE}-"))
}
