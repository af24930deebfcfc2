//! [`Site`]: one real node, etcd on the other end of its underlay, and any number of nodes that are leases only.
//!
//! ```text
//! node 192.168.50.1 --eth0 ~~~ eth0-- 192.168.50.254 etcd; 172.16.0.0/12 all other nodes
//! ```
//!
//! The far namespace owns the addresses of all those nodes, so the first tunnel packet to any of them is received there.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData, MapError};
use etcd_client::{Client, Txn, TxnOp};
use ipnetwork::Ipv4Network;
use overlay_common::Route;
use overlay_tests::{
    cluster::{CONFIG_KEY, agent_program},
    etcd::Etcd,
    netns::Netns,
    node::{AgentCommand, Node, UNDERLAY_DEVICE},
    process, sandbox,
};
use overlay_user::{
    lease::{self, SubnetKey, Vtep},
    mac::Mac,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The network config: room for more subnets than the maps hold.
pub(super) const CONFIG: &str = r#"{"Network":"10.0.0.0/8","SubnetLen":25,"Backend":{"Type":"vxlan"}}"#;

/// The length of the subnets.
const LENGTH: u8 = 25;

/// What the keys of all leases begin with.
const SUBNETS: &str = "/coreos.com/network/subnets/";

/// Keys in one transaction: etcd takes no more.
const AT_ONCE: usize = 128;

/// The port of the tunnel, and where the inner destination is in its payload: behind VXLAN, Ethernet and part of IPv4.
const PORT: u16 = 8472;
const INNER_DESTINATION: usize = 8 + 14 + 16;

/// How long anything may take before it counts as a failure.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// The routes as the programs see them.
pub(super) type RoutesMap = HashMap<MapData, [u8; 4], Route>;

/// The node, etcd, and what is between them.
pub(super) struct Site {
    /// The node.
    pub(super) node: Node,
    /// Leases of other nodes.
    pub(super) leases: u32,
    /// Sends to containers of other nodes.
    near: UdpSocket,
    /// Receives what was sent to other nodes.
    far: UdpSocket,
    etcd: Etcd,
    /// Its threads are where etcd is.
    runtime: Runtime,
    client: Client,
    _directory: TempDir,
}

impl Site {
    /// Starts etcd; there are no leases, and no agent.
    ///
    /// # Errors
    ///
    /// When a part cannot be made.
    pub(super) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("leases-").tempdir_in(sandbox::scratch())?;
        let (node, far) = (Netns::new()?, Netns::new()?);
        node.veth(UNDERLAY_DEVICE, &far, UNDERLAY_DEVICE, 1500)?;
        let (address, etcd) = (Ipv4Addr::new(192, 168, 50, 1), Ipv4Addr::new(192, 168, 50, 254));
        node.ip(&format!("address add {address}/24 dev {UNDERLAY_DEVICE}"))?;
        far.ip(&format!("address add {etcd}/24 dev {UNDERLAY_DEVICE}"))?;
        node.ip(&format!("route add 172.16.0.0/12 via {etcd}"))?;
        far.ip("route add local 172.16.0.0/12 dev lo")?;
        let near = node.run(|| UdpSocket::bind("0.0.0.0:0"))?;
        let received = far.run(|| UdpSocket::bind(("0.0.0.0", PORT)))?;
        received.set_nonblocking(true)?;
        let etcd = Etcd::builder(&far, etcd).start()?;
        etcd.put(CONFIG_KEY, CONFIG)?;
        let runtime = runtime(&far)?;
        let endpoint = etcd.endpoint();
        let client = runtime.block_on(async { tokio::spawn(Client::connect([endpoint], None)).await })??;
        let arguments = vec!["--etcd-endpoints".to_owned(), etcd.endpoint()];
        let agent = AgentCommand { program: agent_program()?, arguments };
        let node = Node::new("node", node, vec![address.into()], directory.path().join("node"), agent)?;
        Ok(Self { node, leases: 0, near, far: received, etcd, runtime, client, _directory: directory })
    }

    /// Adds leases until there are so many.
    ///
    /// # Errors
    ///
    /// When etcd refuses.
    pub(super) fn fill(&mut self, leases: u32) -> Result<()> {
        let numbers: Vec<_> = (self.leases..leases).collect();
        let transactions: Vec<_> = numbers
            .chunks(AT_ONCE)
            .map(|some| {
                let puts = some.iter().map(|&number| TxnOp::put(key(number), value(number), None));
                Txn::new().and_then(puts.collect::<Vec<_>>())
            })
            .collect();
        let mut client = self.client.clone();
        self.block_on(async move {
            for transaction in transactions {
                client.txn(transaction).await?;
            }
            Ok(())
        })?;
        self.leases = leases;
        Ok(())
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not come up: with the end of its log.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.node.start_agent()?;
        self.node.wait_ready().map(drop)
    }

    /// Ends the agent and takes away all that it has left, as if it had never been here.
    ///
    /// # Errors
    ///
    /// When the agent does not end, or etcd refuses.
    pub(super) fn forget_agent(&mut self) -> Result<()> {
        self.node.wait_ready()?;
        let own = self.node.subnet().subnet();
        self.node.stop_agent()?;
        process::output(self.node.overlay().arg("teardown").arg("--run-dir").arg(self.node.run_dir()))?;
        let deleted = self.etcd.delete(&format!("{SUBNETS}{own}-"))?;
        ensure!(deleted == 1, "the agent's lease {own} was not in etcd");
        fs::remove_file(self.node.subnet_file()).context("remove subnet.env")
    }

    /// The map of routes; none before the agent has made it.
    pub(super) fn routes(&self) -> Option<RoutesMap> {
        let path = self.node.run_dir().join("bpf/v1/maps/ROUTES");
        let open = || -> Result<RoutesMap, MapError> { Map::from_map_data(MapData::from_pin(path)?)?.try_into() };
        open().ok()
    }

    /// Sends a packet towards a container of remote node `number`, and says whether one has arrived at that node.
    ///
    /// # Errors
    ///
    /// When the far socket fails. That the near one can send nothing yet is no error.
    pub(super) fn probe(&self, number: u32) -> Result<bool> {
        let to = Ipv4Addr::from(u32::from(subnet(number)) + 2);
        // Without an agent there is no route, and with one there may be no room in its queue.
        self.near.send_to(&[0; 64], (to, 9)).ok();
        let mut packet = [0; 2048];
        loop {
            match self.far.recv(&mut packet) {
                Ok(_) if packet[INNER_DESTINATION..INNER_DESTINATION + 4] == to.octets() => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("receive a tunnel packet"),
            }
        }
    }

    /// Runs `task` on a thread that is where etcd is, and waits for it.
    ///
    /// # Errors
    ///
    /// What `task` fails with.
    pub(super) fn block_on<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime.block_on(async { tokio::spawn(task).await })?
    }

    /// Starts `task` on a thread that is where etcd is.
    pub(super) fn spawn(&self, task: impl Future<Output = Result<()>> + Send + 'static) -> TaskHandle {
        self.runtime.spawn(task)
    }

    /// A connection to etcd.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }
}

/// What a task has come to.
pub(super) type TaskHandle = tokio::task::JoinHandle<Result<()>>;

/// A runtime whose threads are in `netns`.
///
/// # Errors
///
/// When no thread can be started.
pub(super) fn runtime(netns: &Netns) -> Result<Runtime> {
    let netns = netns.clone();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().on_thread_start(move || netns.enter());
    builder.build().context("make an async runtime")
}

/// The subnet of remote node `number`. None of the first hundred of the network, which agents take.
pub(super) fn subnet(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(10, 64, 0, 0)) + (number << (32 - LENGTH))).into()
}

/// The key of the lease of remote node `number`.
pub(super) fn key(number: u32) -> String {
    let v4 = Ipv4Network::new(subnet(number), LENGTH).unwrap_or_else(|_| Ipv4Network::from(subnet(number)));
    format!("{SUBNETS}{}", SubnetKey { v4, v6: None })
}

/// Node `number` as its lease presents it.
pub(super) fn node(number: u32) -> lease::Node {
    let [_, a, b, c] = number.to_be_bytes();
    let vtep = Vtep { vni: 1, mac: Mac([0x02, 0, 0, a, b, c]), takes_no_checksum: false };
    lease::Node {
        public_ip: address(number),
        public_ipv6: None,
        backend: lease::Backend::Vxlan { v4: Some(vtep), v6: None },
    }
}

/// The underlay address of remote node `number`.
pub(super) fn address(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(172, 16, 0, 1)) + number).into()
}

/// The value of the lease of remote node `number`.
pub(super) fn value(number: u32) -> Vec<u8> {
    node(number).to_value()
}

/// Milliseconds since `start`.
pub(super) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
