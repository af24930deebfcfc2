//! The datastore of a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{Datastore, MAX_NODES, Settings};
use crate::{
    etcd::{self, Etcd},
    underlay::Underlay,
};

/// Under which key etcd holds the network config: flannel's.
pub const CONFIG_KEY: &str = "/coreos.com/network/config";

/// The last byte of the underlay address of etcd's first member; others follow downwards.
const ETCD_HOST: u8 = 254;

/// The datastore of a running cluster.
#[derive(Debug)]
pub(super) enum Store {
    Etcd(Vec<Etcd>),
    File(PathBuf),
}

impl Store {
    /// Starts etcd on `underlay`, or names a directory below `directory`.
    pub(super) fn new(settings: &Settings, underlay: &Underlay, directory: &Path) -> Result<Self> {
        if settings.datastore == Datastore::File {
            return Ok(Self::File(directory.join("datastore")));
        }
        let hosts = MAX_NODES + 1..=ETCD_HOST;
        let members = settings.etcd_members;
        ensure!((1..=hosts.len()).contains(&members.into()), "{members} members of etcd: 1 to {} fit", hosts.len());
        let place = |host| {
            let name = if host == ETCD_HOST { "etcd".to_owned() } else { format!("etcd{}", ETCD_HOST - host + 1) };
            let address = underlay.addresses(host).into_iter().next().context("find an address for etcd")?;
            Ok((underlay.attach(&name, host)?, address))
        };
        let places = hosts.rev().take(members.into()).map(place).collect::<Result<Vec<_>>>()?;
        Ok(Self::Etcd(match &places[..] {
            [(netns, address)] => vec![Etcd::builder(netns, *address).args(&settings.etcd_arguments).start()?],
            places => etcd::start_members(places)?,
        }))
    }

    pub(super) fn write_config(&self, config: &str) -> Result<()> {
        match self {
            Self::Etcd(members) => members[0].put(CONFIG_KEY, config).context("write the network config to etcd"),
            Self::File(directory) => {
                fs::create_dir_all(directory)?;
                fs::write(directory.join("config"), config).context("write the network config to a file")
            }
        }
    }

    /// What tells `overlay` where the datastore is.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Etcd(members) => {
                let endpoints: Vec<_> = members.iter().map(Etcd::endpoint).collect();
                vec!["--etcd-endpoints".to_owned(), endpoints.join(",")]
            }
            Self::File(directory) => vec!["--datastore".to_owned(), format!("file:{}", directory.display())],
        }
    }

    pub(super) fn members(&self) -> &[Etcd] {
        match self {
            Self::Etcd(members) => members,
            Self::File(directory) => panic!("the datastore is {}, not etcd", directory.display()),
        }
    }

    pub(super) fn members_mut(&mut self) -> &mut [Etcd] {
        match self {
            Self::Etcd(members) => members,
            Self::File(directory) => panic!("the datastore is {}, not etcd", directory.display()),
        }
    }
}
