//! [`Etcd`]: a real etcd-server in a network namespace, alone or as a member of a cluster.

mod members;

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use etcd_client::{Client, ConnectOptions, DeleteOptions, GetOptions};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use self::members::start_members;
use crate::{netns::Netns, process::Process, sandbox};

/// Port for clients, on the address given.
const CLIENT_PORT: u16 = 2379;
/// Port for other members.
const PEER_PORT: u16 = 2380;
/// Port that answers `/health` without TLS, whatever the clients' port wants.
const HEALTH_PORT: u16 = 2381;

/// How long a start may take before it counts as failed.
const START: Duration = Duration::from_secs(30);

/// How an etcd-server is started. Made by [`Etcd::builder`].
#[derive(Debug)]
pub struct Builder {
    netns: Netns,
    address: IpAddr,
    scheme: &'static str,
    arguments: Vec<OsString>,
    options: ConnectOptions,
}

impl Builder {
    /// Adds command line arguments of etcd.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Serves clients by TLS. The certificates are named by [`Builder::args`], how our own helpers connect by
    /// [`Builder::connect_options`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    /// How [`Etcd::client`], and what builds on it, connects: TLS, user and password.
    #[must_use]
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not come up: with the end of its log.
    pub fn start(self) -> Result<Etcd> {
        let mut etcd = self.launch()?;
        etcd.wait_healthy()?;
        Ok(etcd)
    }

    /// Starts the server and waits for nothing.
    fn launch(self) -> Result<Etcd> {
        let directory = tempfile::Builder::new().prefix("etcd-").tempdir_in(sandbox::scratch())?;
        let process = spawn(&self, &directory)?;
        Ok(Etcd { setup: self, process, directory })
    }

    fn url(&self, port: u16) -> String {
        format!("{}://{}", self.scheme, SocketAddr::from((self.address, port)))
    }
}

/// A real etcd-server with a data directory of its own. Ends, and takes its data along, when dropped.
#[derive(Debug)]
pub struct Etcd {
    setup: Builder,
    process: Process,
    directory: TempDir,
}

impl Etcd {
    /// An etcd-server that will listen on `address`, which must be one of `netns`.
    ///
    /// Ports are etcd's own; two servers in one namespace need two addresses.
    #[must_use]
    pub fn builder(netns: &Netns, address: impl Into<IpAddr>) -> Builder {
        Builder {
            netns: netns.clone(),
            address: address.into(),
            scheme: "http",
            arguments: Vec::new(),
            // A test that waits for ever for a stopped server says nothing.
            options: ConnectOptions::new()
                .with_connect_timeout(Duration::from_secs(5))
                .with_timeout(Duration::from_secs(10)),
        }
    }

    /// Starts an etcd-server on the loopback of a namespace of its own.
    ///
    /// # Errors
    ///
    /// When it does not come up: with the end of its log.
    pub fn on_loopback() -> Result<Self> {
        Self::builder(&Netns::new()?, Ipv4Addr::LOCALHOST).start()
    }

    /// The namespace the server is in.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.setup.netns
    }

    /// The URL for clients, as `--etcd-endpoints` takes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.setup.url(CLIENT_PORT)
    }

    /// The server's process, to look at its log or send it other signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops the server without ending it: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pause(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets a paused server go on, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not answer again.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)?;
        self.wait_healthy()
    }

    /// Kills the server; its data stays.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the server again on its old data, killing it first if it still runs.
    ///
    /// # Errors
    ///
    /// When it does not come up: with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.relaunch()?;
        self.wait_healthy()
    }

    /// The same without waiting: a member of a cluster cannot answer before most of them are there.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.kill()?;
        self.process = spawn(&self.setup, &self.directory)?;
        Ok(())
    }

    /// The data directory, to lose or replace while the server is killed.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Runs `task` with a connected client on a runtime inside the server's namespace.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or what `task` fails with.
    pub fn client<T: Send>(&self, task: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        let (endpoint, options) = (self.endpoint(), self.setup.options.clone());
        self.setup.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = Client::connect([&endpoint], Some(options)).await;
                task(client.with_context(|| format!("connect to {endpoint}"))?).await
            })
        })
    }

    /// Writes a key that no lease holds.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.client(async |mut client| Ok(client.put(key, value, None).await.map(drop)?))
    }

    /// The value of a key, if it exists.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        self.client(async |mut client| {
            let response = client.get(key, None).await?;
            Ok(response.kvs().first().map(|kv| kv.value_str().map(str::to_owned)).transpose()?)
        })
    }

    /// Every key that starts with `prefix`, with its value, in the order of the keys.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn list(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        self.client(async |mut client| {
            let response = client.get(prefix, Some(GetOptions::new().with_prefix())).await?;
            let pair = |kv: &etcd_client::KeyValue| Ok((kv.key_str()?.to_owned(), kv.value_str()?.to_owned()));
            response.kvs().iter().map(pair).collect()
        })
    }

    /// Deletes every key that starts with `prefix` and returns how many there were.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn delete(&self, prefix: &str) -> Result<i64> {
        self.client(async |mut client| {
            let options = DeleteOptions::new().with_prefix();
            Ok(client.delete(prefix, Some(options)).await?.deleted())
        })
    }

    /// Waits until the server answers, and has a leader.
    ///
    /// # Errors
    ///
    /// When it does not: with the end of its log.
    pub fn wait_healthy(&mut self) -> Result<()> {
        let (netns, health) = (&self.setup.netns, SocketAddr::from((self.setup.address, HEALTH_PORT)));
        self.process.wait_ready("etcd's health", START, || Ok(netns.run(|| healthy(health)).then_some(())))
    }
}

/// A URL without TLS.
fn plain_url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::from((address, port)))
}

/// Starts the server without waiting for it.
fn spawn(setup: &Builder, directory: &TempDir) -> Result<Process> {
    let clients = setup.url(CLIENT_PORT);
    let [peers, health] = [PEER_PORT, HEALTH_PORT].map(|port| plain_url(setup.address, port));
    let mut command = setup.netns.command("etcd");
    command.arg("--data-dir").arg(directory.path().join("data"));
    // Alone in its cluster it has nobody to wait for: short intervals only make it start faster.
    command.args("--name alone --heartbeat-interval 10 --election-timeout 50".split(' '));
    command.args("--logger zap --log-level warn".split(' '));
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("alone={peers}"), "--listen-metrics-urls", &health]);
    command.args(&setup.arguments);
    Process::spawn("etcd", command, &directory.path().join("log"))
}

/// Whether the server says that it has a leader and can write. Any failure to ask is a no.
fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /health HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
}

#[cfg(test)]
mod tests;
