//! `overlay cni`: a CNI plugin that connects a container as flannel's does, by another plugin.
//!
//! ```text
//! runtime -> request -> operations -> delegate (network configuration and subnet.env) -> store
//!                                 \-> plugin: bridge or ptp -> host-local
//! ```
//!
//! It makes no interface itself. From `subnet.env` it writes the configuration of a delegate (bridge, unless told
//! otherwise), keeps it in a file until DEL, since `subnet.env` may say something else by then, and runs the delegate.
//! The agent finds the container by netlink, as it finds any other.
//!
//! The protocol is that of the [CNI specification](https://www.cni.dev/docs/spec/), 0.3.0 to 1.1.0. The configuration's
//! keys and defaults are those of flannel's plugin, and so are the files: one can take over from the other.

mod delegate;
mod operations;
mod plugin;
mod request;
mod store;

use std::io::{self, Write as _};

use rscni_types::{error::Error, types::ErrorResult, version::PluginInfo};
use serde_json::json;

use self::request::{Command, Request};

/// Why a request failed: what the runtime gets on standard output.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Found here.
    #[error(transparent)]
    Own(#[from] Error),
    /// The delegate's, passed on as it came.
    #[error("CNI plugin {plugin} says: {}", .result.trim())]
    Delegate {
        /// The delegate's type.
        plugin: String,
        /// Its error result.
        result: String,
    },
}

/// Answers the request in this process's environment and on its standard input, on standard output.
///
/// # Errors
/// When the request failed. The runtime has been told on standard output.
pub fn run() -> Result<(), Failure> {
    let request = Request::read(&|name| std::env::var(name).unwrap_or_default(), io::stdin().lock());
    let version = request.as_ref().map(|request| request.version).unwrap_or_default();
    let answer = request.map_err(Failure::Own).and_then(|request| answer(&request));
    let said = match &answer {
        Ok(said) => said.clone(),
        Err(Failure::Own(error)) => json!(ErrorResult::new(version, error)).to_string(),
        Err(Failure::Delegate { result, .. }) => result.clone(),
    };
    let mut stdout = io::stdout();
    let written = stdout.write_all(said.as_bytes()).and_then(|()| stdout.flush());
    answer?;
    written.map_err(|error| Error::IOFailure(format!("write to standard output: {error}")).into())
}

/// What goes to standard output when the request succeeds.
fn answer(request: &Request) -> Result<String, Failure> {
    let nothing = |()| String::new();
    match &request.command {
        Command::Add(attachment) => operations::add(request, attachment),
        Command::Del(attachment) => operations::del(request, attachment).map(nothing),
        Command::Check(attachment) => operations::check(request, attachment).map(nothing),
        Command::Status => operations::status(request).map(nothing),
        Command::Gc => operations::gc(request).map(nothing),
        Command::Version => {
            let plugin = PluginInfo::default();
            Ok(json!({"cniVersion": request.version, "supportedVersions": plugin.supported_versions()}).to_string())
        }
    }
}
