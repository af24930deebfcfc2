//! [`AgentState`]: what a running agent knows and no map says, for whoever asks at its socket.
//!
//! `RUNDIR/agent.sock` takes connections of root's alone and answers each with one JSON document, an [`AgentState`].

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use crate::{health::Health, node::Node, rundir::private};

/// What a running agent knows. Times are in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// The agent's process.
    pub pid: u32,
    /// When it was started.
    pub started: u64,
    /// Why traffic cannot flow, if it cannot.
    pub obstacle: Option<String>,
    /// What was chosen for this node; nothing before the data path is set up.
    pub choice: Option<Choice>,
    /// Our lease.
    pub lease: LeaseState,
    /// The datastore.
    pub datastore: DatastoreState,
}

/// What was chosen for this node, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The IPv4 subnet that our lease is for, if the overlay has IPv4.
    pub subnet: Option<Ipv4Network>,
    /// The IPv6 subnet, if it has IPv6.
    #[serde(default)]
    pub ipv6_subnet: Option<Ipv6Network>,
    /// The underlay interface.
    pub underlay: String,
    /// Its MTU in bytes.
    pub underlay_mtu: u32,
    /// The address that other nodes reach us at over IPv4, if they can.
    pub public_ip: Option<Ipv4Addr>,
    /// The same over IPv6.
    #[serde(default)]
    pub public_ipv6: Option<Ipv6Addr>,
    /// `udp` or `vxlan`.
    pub backend: String,
    /// MTU of the overlay device in bytes.
    pub mtu: u32,
    /// Where outer packets are decapsulated.
    pub decap: String,
    /// Why there.
    pub decap_why: String,
    /// Whether approved flows take the fast path.
    pub fast_path: bool,
}

/// Our lease, as the agent last heard of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// When it expires if nobody renews it; nothing for a reservation, or before it was heard of.
    pub expires: Option<u64>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// The datastore, as the agent last heard of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreState {
    /// Why it does not answer, if it does not.
    pub silent: Option<String>,
    /// Since when it answers, or is silent.
    pub since: u64,
    /// How often it fell silent since the agent was started.
    pub losses: u64,
    /// How many of its keys and values are no leases, and skipped.
    pub skipped: usize,
}

impl Choice {
    /// What `node` has been set up as.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let plan = node.plan();
        let (decap, decap_why) = node.decap().map_or(("", ""), |decap| (decap.place.name(), decap.why.as_str()));
        Self {
            subnet: plan.ranges.ipv4.map(|range| range.subnet),
            ipv6_subnet: plan.ranges.ipv6.map(|range| range.subnet),
            underlay: plan.underlay.name.clone(),
            underlay_mtu: plan.underlay.mtu,
            public_ip: plan.underlay.ipv4.map(|end| end.public_ip),
            public_ipv6: plan.underlay.ipv6.map(|end| end.public_ip),
            backend: plan.backend.name().to_owned(),
            mtu: plan.mtu,
            decap: decap.to_owned(),
            decap_why: decap_why.to_owned(),
            fast_path: plan.flow_ttl != 0,
        }
    }
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The agent's own hold on its state. Cloning yields another hold on the same.
#[derive(Debug, Clone)]
pub struct StateHandle(Arc<watch::Sender<AgentState>>);

impl Default for StateHandle {
    fn default() -> Self {
        let now = seconds(SystemTime::now());
        let datastore = DatastoreState { since: now, ..DatastoreState::default() };
        let state = AgentState { pid: std::process::id(), started: now, datastore, ..AgentState::default() };
        Self(Arc::new(watch::Sender::new(state)))
    }
}

impl StateHandle {
    /// The state as it is now.
    #[must_use]
    pub fn now(&self) -> AgentState {
        self.0.borrow().clone()
    }

    /// Changes the state.
    pub fn change(&self, change: impl FnOnce(&mut AgentState)) {
        self.0.send_modify(change);
    }

    /// The datastore answers, or does not and says why.
    pub fn datastore(&self, silent: Option<String>) {
        self.change(|state| {
            state.datastore.since = seconds(SystemTime::now());
            state.datastore.losses += u64::from(silent.is_some() && state.datastore.silent.is_none());
            state.datastore.silent = silent;
        });
    }

    /// Our lease is in order until `expires`, or for ever.
    pub fn lease(&self, expires: Option<SystemTime>) {
        self.change(|state| state.lease = LeaseState { expires: expires.map(seconds), problem: None });
    }

    /// Something is wrong with our lease.
    pub fn lease_problem(&self, problem: String) {
        self.change(|state| state.lease.problem = Some(problem));
    }

    /// Answers at `path` from now on, for as long as the agent runs.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(&self, path: &Path, health: Health) -> Result<()> {
        // What an earlier agent has left; we hold the run directory, so it is nobody's.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .with_context(|| format!("remove the old socket {}", path.display()))?;
        let listener = private::with_private_umask(|| UnixListener::bind(path))
            .with_context(|| format!("listen at {}: is the path too long?", path.display()))?;
        let handle = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = AgentState { obstacle: health.obstacle(), ..handle.0.borrow().clone() };
                tokio::spawn(answer(stream, state));
            }
        });
        Ok(())
    }
}

/// One who does not read is not waited for.
async fn answer(mut stream: UnixStream, state: AgentState) {
    let text = serde_json::to_vec(&state).unwrap_or_default();
    if let Ok(Err(error)) | Err(error) = timeout(PATIENCE, stream.write_all(&text)).await.map_err(io::Error::from) {
        tracing::debug!(%error, "state not told");
    }
}

/// How long the other end may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the agent that answers at `path`; `None`: none does.
pub async fn ask(path: &Path) -> Option<AgentState> {
    let mut text = Vec::new();
    let asked = async {
        let mut stream = UnixStream::connect(path).await.ok()?;
        stream.read_to_end(&mut text).await.ok()
    };
    timeout(PATIENCE, asked).await.ok()??;
    serde_json::from_slice(&text).ok()
}
