//! The agent's start, rehearsed in namespaces of its own: what the kernel says when it is given the agent's own programs,
//! links and devices, without a trace on the node.
//!
//! The namespaces (network and mounts, `/run` being an empty tmpfs) belong to one thread. When it ends the kernel takes
//! them away, with everything in them: bpffs, maps, programs, devices, rules. Like the agent, the rehearsal makes the kernel
//! load modules that are needed (vxlan, nf_tables).

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tokio::{sync::oneshot, task::LocalSet};
use tracing::subscriber::NoSubscriber;

use super::Finding;
use crate::{
    agent::{self, Settled},
    config::AgentConfig,
    link::{self, LinkConfig, OverlayLink},
    loader::{ContainerProgram, Interface, Programs},
    mac::Mac,
    masquerade::{Masquerade, RulesConfig, TrafficRules},
    network::{Backend, NetworkConfig, Range, Ranges},
    node::{Macs, Plan},
    rundir::RunDir,
    underlay::{End, Underlay},
};

/// The loopback interface of a new network namespace stands for the underlay.
const LOOPBACK: Interface<'static> = Interface { name: "lo", index: 1 };

/// Its addresses stand for the node's own.
const IPV4_END: End<Ipv4Addr> = End { address: Ipv4Addr::LOCALHOST, public_ip: Ipv4Addr::LOCALHOST };
const IPV6_END: End<Ipv6Addr> = End { address: Ipv6Addr::LOCALHOST, public_ip: Ipv6Addr::LOCALHOST };

/// The check of the overlay device.
const CHECK: &str = "links";

/// What is rehearsed.
#[derive(Debug, Clone)]
pub(super) struct Play {
    /// The overlay as the agent would set it up.
    pub(super) plan: Plan,
    /// How it would masquerade.
    pub(super) masquerade: Option<Masquerade>,
    /// Whether it would accept forwarded overlay traffic.
    pub(super) forward: bool,
}

/// An overlay to rehearse with where the real one is not known.
pub(super) fn stand_in(config: &AgentConfig) -> Plan {
    let underlay = Underlay {
        name: LOOPBACK.name.to_owned(),
        ifindex: LOOPBACK.index,
        mac: [0; 6],
        mtu: 1500,
        ipv4: Some(IPV4_END),
        ipv6: None,
        addresses: Vec::new(),
    };
    let backend = Backend::Vxlan { port: 8472, vni: 1, direct_routing: false, mtu: None, learning: false };
    let network = NetworkConfig { ipv4: None, ipv6: None, enable_nftables: false, backend };
    // A network for documentation (RFC 5737): the namespace has no other addresses.
    let address = Ipv4Network::from(Ipv4Addr::new(192, 0, 2, 0));
    let ranges = Ranges { ipv4: Some(Range { network: address, subnet: address }), ipv6: None };
    let macs = Macs { v4: Mac::random().0, v6: Mac::random().0 };
    Settled { network, underlay, mtu: 1450, macs }.plan(config, ranges)
}

pub(super) async fn check(play: Play) -> Vec<Finding> {
    let (done, outcome) = oneshot::channel();
    // Not one of the runtime's threads: those would be used again, in the wrong namespaces.
    let spawned = thread::Builder::new().name("rehearsal".to_owned()).spawn(move || {
        // Its log lines would be about devices that are not there.
        let outcome = tracing::subscriber::with_default(NoSubscriber::new(), || rehearse(play));
        // Nobody listens when the check was given up meanwhile.
        done.send(outcome).ok();
    });
    let outcome = match spawned {
        Ok(_) => outcome.await.context("the rehearsal has panicked"),
        Err(error) => Err(error).context("start a thread"),
    };
    outcome.flatten().unwrap_or_else(|error| {
        let found = format!("programs, links and device not tried: {error:#}");
        vec![Finding::yellow("kernel", found, "run the check as root")]
    })
}

fn rehearse(play: Play) -> Result<Vec<Finding>> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("make namespaces of our own")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount a tmpfs")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
    LocalSet::new().block_on(&runtime, perform(play))
}

async fn perform(Play { plan, masquerade, forward }: Play) -> Result<Vec<Finding>> {
    let run_dir = RunDir::new(Path::new("/run/overlay"));
    let (ipv4, ipv6) = (plan.underlay.ipv4.map(|_| IPV4_END), plan.underlay.ipv6.map(|_| IPV6_END));
    let underlay = Underlay { ifindex: LOOPBACK.index, ipv4, ipv6, ..plan.underlay };
    let plan = Plan { underlay, ..plan };
    let (bpffs, programs) = load(&run_dir, &plan);
    let handle = agent::netlink()?;
    let (mut devices, mut links) = (Vec::new(), Vec::new());
    for config in plan.links() {
        let (device, link) = set_up(&handle, &config).await;
        devices.push(device);
        links.extend(link);
    }
    // Two devices of one kind have one thing to say, unless one is refused.
    devices.dedup();
    let mut findings = vec![bpffs];
    if let Some(mut programs) = programs {
        findings.push(verify(&mut programs));
        findings.push(attach(&mut programs, links.first()));
    }
    findings.append(&mut devices);
    let Ranges { ipv4, ipv6 } = plan.ranges;
    let name = link::device_name(plan.backend.vni());
    findings.push(rules(RulesConfig { name, ipv4, ipv6, masquerade, forward }).await);
    Ok(findings)
}

fn load(run_dir: &RunDir, plan: &Plan) -> (Finding, Option<Programs>) {
    if let Err(error) = run_dir.prepare() {
        return (Finding::refused("bpffs", error, "the kernel needs CONFIG_BPF_SYSCALL; see `mount -t bpf`"), None);
    }
    match Programs::load(&run_dir.maps(), run_dir, plan.constants()) {
        Ok(programs) => (Finding::green("bpffs", "can be mounted, and maps can be made and pinned"), Some(programs)),
        Err(error) => (Finding::refused("bpffs", error, "see the memory check; Linux 6.1 or later is needed"), None),
    }
}

fn verify(programs: &mut Programs) -> Finding {
    match programs.load_all() {
        Ok(()) => {
            Finding::green("programs", "the kernel's verifier takes all of them, with every helper that they call")
        }
        Err(error) => Finding::refused("programs", error, "use Linux 6.1 or later"),
    }
}

/// Attaches as the agent does, with the overlay device if it could be made.
fn attach(programs: &mut Programs, link: Option<&OverlayLink>) -> Finding {
    let device = link.map_or(LOOPBACK, |link| Interface { name: &link.name, index: link.ifindex });
    let attached = programs
        .attach_to_overlay(device)
        .and_then(|()| programs.attach_from_underlay(LOOPBACK))
        .and_then(|()| programs.attach_admit(device))
        .and_then(|()| programs.attach_container(ContainerProgram::From, LOOPBACK));
    match attached {
        Ok(()) if programs.are_filters() => Finding::green(
            "tcx",
            "not in this kernel: clsact is used, programs can be attached as filters of priority 2",
        ),
        Ok(()) => Finding::green("tcx", "programs can be attached by links that outlive the agent"),
        Err(error) => {
            Finding::refused("tcx", error, "the kernel needs tcx (Linux 6.6) or the modules sch_ingress and cls_bpf")
        }
    }
}

async fn set_up(handle: &rtnetlink::Handle, config: &LinkConfig) -> (Finding, Option<OverlayLink>) {
    let kind = match config.kind {
        link::LinkKind::Udp => "TAP",
        link::LinkKind::Vxlan(_) => "VXLAN",
    };
    match link::set_up(handle, config).await {
        Ok(link) => {
            (Finding::green(CHECK, format!("{kind} devices can be made, with route and parameters")), Some(link))
        }
        Err(error) => {
            let advice = "load the module (vxlan, or tun for the udp backend), and let the agent write /proc/sys";
            (Finding::refused(CHECK, error, advice), None)
        }
    }
}

async fn rules(config: RulesConfig) -> Finding {
    const CHECK: &str = "nftables";
    let masquerades = config.masquerade.is_some();
    match TrafficRules::new(config).ensure().await {
        Ok(_) if masquerades => Finding::green(CHECK, "the masquerading rules can be set"),
        Ok(_) => Finding::green(CHECK, "no rules to set without --ip-masq"),
        Err(error) => Finding::refused(CHECK, error, "install nftables; the kernel needs nf_tables with NAT"),
    }
}
