//! The overlay on this node: devices, programs, maps. Set up once, adjusted while the agent runs, left behind when it
//! goes, taken away by [`take_down`].

mod containers;
mod decap;
mod follow;
mod fragments;
mod insisting;
mod layout;
mod mend;
mod owners;
mod plan;
mod route_maps;
mod take_down;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use overlay_common::{Encapsulation, Route};
use rtnetlink::Handle;

pub(crate) use self::plan::{least_mtu, presented};
use self::{containers::Containers, fragments::Fragments, insisting::Insisting, layout::Layout, route_maps::RouteMaps};
pub use self::{
    decap::{DecapChoice, DecapPlace, check_decap, choose_decap},
    plan::{Macs, Plan, overhead, overlay_mtu},
    take_down::take_down,
};

use crate::{
    cli::Decap,
    conntrack,
    direct::DirectRoutes,
    endpoints::Endpoints,
    link::{self, LinkConfig, LinkError, OverlayLink},
    loader::{Interface, Programs},
    maps::{LocalNodeMap, MapsError},
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
    /// The overlay devices, in the order of [`Plan::links`].
    links: Vec<OverlayLink>,
    programs: Programs,
    routes: RouteMaps,
    direct: DirectRoutes,
    insisting: Insisting,
    local: LocalNodeMap,
    containers: Containers,
    /// With `udp` encapsulation, once they are served.
    fragments: Option<Fragments>,
    /// The smallest MTU on the way to a container.
    containers_mtu: Option<u32>,
    /// Whether our subnets are ours to forward for.
    claimed: bool,
}

impl Node {
    /// Sets up devices, maps and programs, or takes over those of an earlier agent. Nothing is attached yet: see
    /// [`attach`](Self::attach).
    ///
    /// # Errors
    /// When the kernel refuses something; what was set up then stays for [`take_down`].
    pub async fn set_up(handle: &Handle, run_dir: &RunDir, plan: Plan) -> Result<Self> {
        run_dir.prepare()?;
        plan.keep_advertised_routes()?;
        let links = set_up_links(handle, run_dir, &plan.links()).await?;
        let layout = Layout::choose(run_dir, plan.capacities)?;
        let maps = layout.maps();
        let mut programs = Programs::load(&maps, run_dir, plan.constants())?;
        layout.carry_owners()?;
        if plan.log_drops {
            tokio::spawn(programs.pass_on_log()?);
        }
        let mut local = LocalNodeMap::open(&maps)?;
        local.set(plan.local_node(&links, true, plan.mtu))?;
        let routes = RouteMaps::open(&maps, &plan.ranges)?;
        let direct = plan.direct_routes(handle);
        let containers = Containers::open(&maps, &programs, plan.flow_ttl != 0)?;
        let handle = handle.clone();
        Ok(Self {
            plan,
            decap: None,
            handle,
            run_dir: run_dir.clone(),
            layout,
            links,
            programs,
            routes,
            direct,
            insisting: Insisting::default(),
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
        let overlay = self.links.iter().map(|link| Interface { name: &link.name, index: link.ifindex });
        let underlay = Interface { name: &self.plan.underlay.name, index: self.plan.underlay.ifindex };
        let mut attached = Vec::new();
        for device in overlay.clone() {
            self.programs.attach_to_overlay(device)?;
            attached.push(("to_overlay", device.index));
        }
        self.programs.attach_from_underlay(underlay)?;
        attached.push(("from_underlay", underlay.index));
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
            for device in overlay {
                self.programs.attach_admit(device)?;
                attached.push(("admit", device.index));
            }
        }
        self.programs.detach_all_but(&attached)?;
        self.layout.settle()
    }

    /// Makes the routes equal to `wanted`. Returns how many changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn reconcile(&mut self, wanted: &BTreeMap<IpNetwork, Route>) -> Result<usize> {
        let mut resolved = BTreeMap::new();
        for (&subnet, &route) in wanted {
            resolved.insert(subnet, self.direct.set(subnet, route).await?);
        }
        let plain = resolved.iter().filter(|(_, route)| route.is_direct()).map(|(&subnet, _)| subnet).collect();
        self.direct.remove_all_but(&plain).await?;
        self.insisting = Insisting::among(&resolved);
        self.tell_device().await?;
        Ok(self.routes.reconcile(&resolved)?)
    }

    /// Tells the overlay device over IPv6, if there is one, which nodes it sends to itself.
    async fn tell_device(&self) -> Result<()> {
        let configs = self.plan.links();
        let over_ipv6 = configs.iter().zip(&self.links).find(|(config, _)| config.is_over_ipv6());
        match over_ipv6 {
            Some((_, device)) => Ok(self.insisting.tell(&self.handle, device).await?),
            None => Ok(()),
        }
    }

    /// Applies one change to the routes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn change_route(&mut self, change: RouteChange) -> Result<()> {
        match change {
            RouteChange::Set { subnet, route } => {
                let route = self.direct.set(subnet, route).await?;
                if self.insisting.note(subnet, Some(route)) {
                    self.tell_device().await?;
                }
                self.routes.set(subnet, route)?;
                tracing::info!(%subnet, next_hop = %route.next_hop(), direct = route.is_direct(), "route set");
            }
            RouteChange::Remove { subnet } => {
                self.routes.remove(subnet)?;
                self.direct.remove(subnet).await?;
                if self.insisting.note(subnet, None) {
                    self.tell_device().await?;
                }
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

    /// Claims our subnets, or stops claiming them: then nothing comes in for them and nothing goes out from them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn claim_subnet(&mut self, claim: bool) -> Result<()> {
        self.claimed = claim;
        Ok(self.tell_programs()?)
    }

    /// Tells the programs what this node is now.
    fn tell_programs(&mut self) -> Result<(), MapsError> {
        // Past a bridge, a packet that is too large for it is the kernel's to refuse or to cut up.
        let fast_mtu = self.containers_mtu.map_or(self.plan.mtu, |mtu| mtu.min(self.plan.mtu));
        self.local.set(self.plan.local_node(&self.links, self.claimed, fast_mtu))
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

/// Makes the overlay devices and notes their names, and takes away those that an earlier agent had and this one has not.
async fn set_up_links(handle: &Handle, run_dir: &RunDir, configs: &[LinkConfig]) -> Result<Vec<OverlayLink>> {
    let names: Vec<_> = configs.iter().map(LinkConfig::name).collect();
    let left_over: Vec<_> = run_dir.devices().into_iter().filter(|device| !names.contains(device)).collect();
    run_dir.record_devices(&[names.as_slice(), &left_over].concat())?;
    for device in &left_over {
        link::remove(handle, device).await.with_context(|| format!("remove device {device}"))?;
    }
    run_dir.record_devices(&names)?;
    let mut links = Vec::new();
    for config in configs {
        match link::set_up(handle, config).await {
            Ok(link) => links.push(link),
            Err(error) => return Err(undo(handle, &links, error).await.into()),
        }
    }
    Ok(links)
}

/// Takes away what has been made before `error`.
async fn undo(handle: &Handle, links: &[OverlayLink], error: LinkError) -> LinkError {
    for link in links.iter().filter(|link| !link.adopted) {
        if let Err(undo) = link::remove(handle, &link.name).await {
            return LinkError::NotUndone { error: Box::new(error), undo: Box::new(undo) };
        }
    }
    error
}
