//! The overlay on this node: device, programs, maps. Set up once, adjusted while the agent runs, left behind when it
//! goes, taken away by [`take_down`].

mod containers;
mod decap;
mod follow;
mod fragments;
mod layout;
mod mend;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use overlay_common::{Encapsulation, Route};
use rtnetlink::Handle;

use self::{containers::Containers, fragments::Fragments, layout::Layout};
pub use self::{
    decap::{DecapChoice, DecapPlace, check_decap, choose_decap},
    plan::{Plan, overlay_mtu},
};

use crate::{
    cli::Decap,
    conntrack,
    direct::DirectRoutes,
    endpoints::Endpoints,
    link::{self, OverlayLink},
    loader::{self, Interface, Programs},
    maps::{LocalNodeMap, MapsError, Routes},
    masquerade,
    routes::RouteChange,
    rundir::RunDir,
};

/// The overlay on this node.
pub struct Node {
    plan: Plan,
    /// Where outer packets are decapsulated, once the programs are attached.
    decap: Option<DecapChoice>,
    handle: Handle,
    run_dir: RunDir,
    layout: Layout,
    link: OverlayLink,
    programs: Programs,
    routes: Routes,
    direct: DirectRoutes,
    local: LocalNodeMap,
    containers: Containers,
    /// With `udp` encapsulation, once they are served.
    fragments: Option<Fragments>,
    /// The smallest MTU on the way to a container.
    containers_mtu: Option<u32>,
    /// Whether our subnet is ours to forward for.
    claimed: bool,
}

impl Node {
    /// Sets up device, maps and programs, or takes over those of an earlier agent. Nothing is attached yet: see
    /// [`attach`](Self::attach).
    ///
    /// # Errors
    /// When the kernel refuses something; what was set up then stays for [`take_down`].
    pub async fn set_up(handle: &Handle, run_dir: &RunDir, plan: Plan) -> Result<Self> {
        let config = plan.link();
        run_dir.prepare()?;
        run_dir.record_device(&config.name())?;
        let link = link::set_up(handle, &config).await?;
        let layout = Layout::choose(run_dir, plan.capacities)?;
        let maps = layout.maps();
        let mut programs = Programs::load(&maps, run_dir, plan.constants())?;
        layout.carry_owners()?;
        if plan.log_drops {
            tokio::spawn(programs.pass_on_log()?);
        }
        let mut local = LocalNodeMap::open(&maps)?;
        local.set(plan.local_node(plan.subnet.ip(), link.ifindex, plan.mtu))?;
        let routes = Routes::open(&maps, plan.subnet.prefix())?;
        let direct = plan.direct_routes(handle);
        let containers = Containers::open(&maps, &programs, plan.flow_ttl != 0)?;
        let handle = handle.clone();
        Ok(Self {
            plan,
            decap: None,
            handle,
            run_dir: run_dir.clone(),
            layout,
            link,
            programs,
            routes,
            direct,
            local,
            containers,
            fragments: None,
            containers_mtu: None,
            claimed: true,
        })
    }

    /// Attaches the programs; packets flow from here on. Programs of an earlier agent are replaced in their place.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn attach(&mut self) -> Result<()> {
        if self.layout.is_beside() {
            // First, so that nothing but the exchange of programs lies between the first and the last link.
            self.programs.load_all()?;
            self.layout.carry_counts()?;
            self.containers.replace_all(&mut self.programs);
        }
        let overlay = Interface { name: &self.link.name, index: self.link.ifindex };
        let underlay = Interface { name: &self.plan.underlay.name, index: self.plan.underlay.ifindex };
        self.programs.attach_to_overlay(overlay)?;
        self.programs.attach_from_underlay(underlay)?;
        let mut attached = vec![("to_overlay", overlay.index), ("from_underlay", underlay.index)];
        let asked = self.plan.decap;
        let mut decap = choose_decap(&self.handle, asked, &self.plan.underlay).await;
        if decap.place == DecapPlace::Xdp {
            match self.programs.attach_xdp_decap(underlay) {
                Ok(()) => attached.push(("xdp_decap", underlay.index)),
                // TC decapsulates whatever XDP has not.
                Err(error) if asked == Decap::Auto || error.is_taken() => {
                    decap = DecapChoice::new(DecapPlace::Tc, format!("XDP could not be had: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.decap.as_ref() != Some(&decap) {
            tracing::info!(place = decap.place.name(), why = decap.why, "decapsulating");
        }
        self.decap = Some(decap);
        // The TAP of `udp` has no port that others could send to.
        if self.plan.backend.encapsulation() == Encapsulation::Vxlan {
            self.programs.attach_admit(overlay)?;
            attached.push(("admit", overlay.index));
        }
        self.programs.detach_all_but(&attached)?;
        self.layout.settle()
    }

    /// Makes the routes equal to `wanted`. Returns how many changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn reconcile(&mut self, wanted: &BTreeMap<Ipv4Network, Route>) -> Result<usize> {
        let mut resolved = BTreeMap::new();
        for (&subnet, &route) in wanted {
            resolved.insert(subnet, self.direct.set(subnet, route).await?);
        }
        let plain = resolved.iter().filter(|(_, route)| route.is_direct()).map(|(&subnet, _)| subnet).collect();
        self.direct.remove_all_but(&plain).await?;
        Ok(self.routes.reconcile(&resolved)?)
    }

    /// Applies one change to the routes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_route(&mut self, change: RouteChange) -> Result<()> {
        match change {
            RouteChange::Set { subnet, route } => {
                let route = self.direct.set(subnet, route).await?;
                self.routes.set(subnet, route)?;
                tracing::info!(%subnet, next_hop = %route.next_hop(), direct = route.is_direct(), "route set");
            }
            RouteChange::Remove { subnet } => {
                self.routes.remove(subnet)?;
                self.direct.remove(subnet).await?;
                tracing::info!(%subnet, "route removed");
            }
        }
        Ok(())
    }

    /// Makes what is attached to containers' interfaces, and whose address is whose, equal to `found`; what takes the kernel
    /// long is left to [`attach_next`](Self::attach_next). What cannot be done is reported.
    pub fn follow_endpoints(&mut self, found: Endpoints) {
        if self.plan.flow_ttl != 0 {
            // Not once for all: conntrack may be loaded later, by the first rule that asks for it.
            self.conntrack_for_fast_path();
        }
        if self.containers_mtu != found.mtu {
            self.containers_mtu = found.mtu;
            if let Err(error) = self.tell_programs() {
                tracing::warn!(%error, "MTU of the containers' bridge not followed");
            }
        }
        self.containers.follow(&self.programs, found);
    }

    /// Without it TCP still flows, unless a rule drops what conntrack calls invalid: no reason to give up.
    fn conntrack_for_fast_path(&self) {
        match conntrack::tolerate_gaps(&self.run_dir) {
            Ok(true) => tracing::info!("nf_conntrack_tcp_be_liberal set for the fast path"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "conntrack may call TCP packets of the fast path invalid"),
        }
    }

    /// Waits until a program is to be attached to a container's interface.
    pub async fn attachment_due(&self) {
        self.containers.due().await;
    }

    /// Attaches one program to one container's interface.
    pub fn attach_next(&mut self) {
        self.containers.attach_next(&mut self.programs);
    }

    /// Claims our subnet, or stops claiming it: then nothing comes in for it and nothing goes out from it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn claim_subnet(&mut self, claim: bool) -> Result<()> {
        self.claimed = claim;
        Ok(self.tell_programs()?)
    }

    /// Tells the programs what this node is now.
    fn tell_programs(&mut self) -> Result<(), MapsError> {
        // No address lies in a subnet that begins at 0.0.0.0, as long as it is not ours.
        let subnet = if self.claimed { self.plan.subnet.ip() } else { Ipv4Addr::UNSPECIFIED };
        // Past a bridge, a packet that is too large for it is the kernel's to refuse or to cut up.
        let fast_mtu = self.containers_mtu.map_or(self.plan.mtu, |mtu| mtu.min(self.plan.mtu));
        self.local.set(self.plan.local_node(subnet, self.link.ifindex, fast_mtu))
    }

    /// Where outer packets are decapsulated, and why there; `None` before [`attach`](Self::attach).
    #[must_use]
    pub const fn decap(&self) -> Option<&DecapChoice> {
        self.decap.as_ref()
    }

    /// What the overlay on this node is.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Takes away everything that agents have left in `run_dir` and its overlay device. What is missing is no error.
///
/// # Errors
/// When the kernel refuses.
pub async fn take_down(handle: &Handle, run_dir: &RunDir) -> Result<()> {
    let (device, conntrack) = (run_dir.device(), run_dir.conntrack());
    remove_direct_routes(handle, run_dir).await?;
    // Pins before the device: programs detach, so that the device does not drop packets with them half gone.
    loader::take_down(run_dir)?;
    run_dir.remove_layouts()?;
    if let Some(device) = device {
        masquerade::remove(&device).await.with_context(|| format!("remove the netfilter rules of {device}"))?;
        link::remove(handle, &device).await.with_context(|| format!("remove device {device}"))?;
    }
    // When no flow is on the fast path any more, of another overlay on this node neither.
    if let Some(before) = conntrack {
        let others = link::list(handle).await?;
        if others.is_empty() {
            conntrack::put_back(&before)?;
        } else {
            let others = others.join(", ");
            tracing::info!(others, before, "nf_conntrack_tcp_be_liberal stays set for other overlays");
        }
    }
    Ok(run_dir.remove()?)
}

/// Removes the plain routes into the network that the maps name, if an agent has got as far as to write it there.
async fn remove_direct_routes(handle: &Handle, run_dir: &RunDir) -> Result<()> {
    let Ok(local) = LocalNodeMap::open(&run_dir.maps()).and_then(|map| map.get()) else { return Ok(()) };
    let (address, prefix) = local.range::<[u8; 4]>().network();
    if local.port() == 0 {
        return Ok(());
    }
    let direct = DirectRoutes::new(handle.clone(), Ipv4Network::new(address, prefix)?, local.underlay_ifindex, true);
    Ok(direct.remove_all_but(&BTreeSet::new()).await?)
}
