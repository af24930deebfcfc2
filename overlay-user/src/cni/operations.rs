//! What each command does.

use std::path::Path;

use rscni_types::{error::Error, types::Cmd};
use serde_json::json;

use super::{
    Failure,
    delegate::Delegate,
    plugin::Plugin,
    request::{Attachment, Config, Request},
    store::Store,
};
use crate::in_words::joined;
use crate::subnet_file::{ReadSubnetFileError, SubnetFile};

/// Our code for a container that has an address of a subnet that is no longer this node's; the specification keeps
/// those below 100.
const OTHER_SUBNET: u32 = 100;

/// Where flannel's plugin looks, unless told otherwise.
const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/flannel";

/// ADD: connects a container; returns the delegate's result.
pub(super) fn add(request: &Request, attachment: &Attachment) -> Result<String, Failure> {
    let (delegate, plugin) = delegate(request)?;
    let store = store(&request.config);
    // A runtime that adds a container twice, which it must not, shall not lose it.
    let is_new = store.load(attachment)?.is_none();
    store.save(attachment, &delegate.config)?;
    let added = plugin.run(Cmd::Add, &delegate.config);
    if added.is_err() && is_new {
        let undone = plugin.run(Cmd::Del, &delegate.config).and_then(|_| Ok(store.remove(attachment)?));
        if let Err(error) = undone {
            tracing::warn!(%error, "what ADD had done is not undone; DEL will try again");
        }
    }
    added
}

/// DEL: disconnects a container. One that is not known has been disconnected already.
pub(super) fn del(request: &Request, attachment: &Attachment) -> Result<(), Failure> {
    let store = store(&request.config);
    if let Some(mut delegate) = store.load(attachment)? {
        delegate.set_request(&request.config, request.version);
        Plugin::find(&delegate.plugin, &request.path)?.run(Cmd::Del, &delegate.config)?;
    }
    Ok(store.remove(attachment)?)
}

/// CHECK: asks whether a container is still connected as ADD has left it.
pub(super) fn check(request: &Request, attachment: &Attachment) -> Result<(), Failure> {
    if request.config.prev_result.is_none() {
        return Err(Error::InvalidNetworkConfig("no prevResult, the result of ADD, to compare with".to_owned()).into());
    }
    let Attachment { container, interface } = attachment;
    let mut delegate = store(&request.config)
        .load(attachment)?
        .ok_or_else(|| Error::NotExist(format!("{interface} of {container} was not added, or is deleted")))?;
    // Without the file, which the agent makes anew after a boot, there is nothing to say against the container.
    match SubnetFile::read(subnet_file(&request.config)) {
        Ok(subnet) if !delegate.is_of(&subnet) => {
            let details = format!("this node has {} now: start {container} anew", joined(subnet.ranges.subnets()));
            return Err(Error::Custom(OTHER_SUBNET, "The address is of another subnet".to_owned(), details).into());
        }
        _ => {}
    }
    delegate.set_request(&request.config, request.version);
    Plugin::find(&delegate.plugin, &request.path)?.run(Cmd::Check, &delegate.config).map(drop)
}

/// STATUS: whether ADD could succeed.
pub(super) fn status(request: &Request) -> Result<(), Failure> {
    let unavailable = |error: ReadSubnetFileError| Error::PluginNotAvailable(error.to_string());
    SubnetFile::read(subnet_file(&request.config)).map_err(unavailable)?;
    let (delegate, plugin) = delegate(request)?;
    plugin.run(Cmd::Status, &delegate.config).map(drop)
}

/// GC: forgets what belongs to no container any more, and has the delegate do so.
pub(super) fn gc(request: &Request) -> Result<(), Failure> {
    let Some(valid) = &request.config.valid_attachments else {
        return Err(Error::InvalidNetworkConfig("no cni.dev/valid-attachments to keep".to_owned()).into());
    };
    // As much as possible, whatever fails.
    let delegated = delegate(request).and_then(|(mut delegate, plugin)| {
        delegate.config.insert("cni.dev/valid-attachments".to_owned(), json!(valid));
        plugin.run(Cmd::Gc, &delegate.config)
    });
    store(&request.config).retain(request.config.name.as_deref().unwrap_or_default(), valid)?;
    delegated.map(drop)
}

/// The delegate by what `subnet.env` says now.
fn delegate(request: &Request) -> Result<(Delegate, Plugin), Failure> {
    let Request { config, version, path, .. } = request;
    let subnet = SubnetFile::read(subnet_file(config))?;
    let delegate = Delegate::new(config, *version, &subnet)?;
    let plugin = Plugin::find(&delegate.plugin, path)?;
    Ok((delegate, plugin))
}

fn subnet_file(config: &Config) -> &Path {
    config.subnet_file.as_deref().unwrap_or(Path::new(SUBNET_FILE))
}

fn store(config: &Config) -> Store<'_> {
    Store::new(config.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR)))
}

impl From<ReadSubnetFileError> for Failure {
    fn from(error: ReadSubnetFileError) -> Self {
        let details = error.to_string();
        Self::Own(match error {
            ReadSubnetFileError::Missing { .. } => Error::TryAgainLater(details),
            ReadSubnetFileError::Unreadable { .. } => Error::IOFailure(details),
            ReadSubnetFileError::Invalid { .. } => Error::FailedToDecode(details),
        })
    }
}
