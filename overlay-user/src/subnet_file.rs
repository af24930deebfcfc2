//! `subnet.env`: what Docker's start-up scripts and the CNI plugin read, and what a restarted agent reads back.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::atomic_file;
use crate::network::{Range, Ranges};

/// What `subnet.env` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFile {
    /// The overlay networks and this node's subnets.
    pub ranges: Ranges,
    /// MTU of containers' interfaces, in bytes.
    pub mtu: u32,
    /// Whether the agent masquerades, so that nobody else has to.
    pub ip_masq: bool,
}

/// What an earlier `subnet.env` says: every line that makes sense, whatever the others are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreviousSubnetFile {
    /// `FLANNEL_NETWORK`.
    pub network: Option<Ipv4Network>,
    /// `FLANNEL_SUBNET`, as a network (host bits cleared).
    pub subnet: Option<Ipv4Network>,
    /// `FLANNEL_IPV6_NETWORK`.
    pub ipv6_network: Option<Ipv6Network>,
    /// `FLANNEL_IPV6_SUBNET`, as a network (host bits cleared).
    pub ipv6_subnet: Option<Ipv6Network>,
    /// `FLANNEL_MTU`, in bytes.
    pub mtu: Option<u32>,
    /// `FLANNEL_IPMASQ`.
    pub ip_masq: Option<bool>,
}

/// `subnet.env` could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write subnet file {}", .path.display())]
pub struct SubnetFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// `subnet.env` does not say what a reader needs.
#[derive(Debug, thiserror::Error)]
pub enum ReadSubnetFileError {
    /// No agent has written it yet.
    #[error("no subnet file {} yet: is the agent running, and does it reach its datastore?", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("read subnet file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It lacks a value, or has one that makes no sense.
    #[error("subnet file {} has no valid {key}; restart the agent, which writes it", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The first such key.
        key: &'static str,
    },
}

impl SubnetFile {
    /// Reads what an agent has written; the subnet as a network (host bits cleared).
    ///
    /// # Errors
    /// [`ReadSubnetFileError`], also when only a part is missing: whoever configures containers needs all of it.
    pub fn read(path: &Path) -> Result<Self, ReadSubnetFileError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReadSubnetFileError::Missing { path: path.to_owned() },
            _ => ReadSubnetFileError::Unreadable { path: path.to_owned(), source },
        })?;
        PreviousSubnetFile::parse(&text)
            .try_into()
            .map_err(|key| ReadSubnetFileError::Invalid { path: path.to_owned(), key })
    }

    /// The file's text, line for line as flannel writes it: `FLANNEL_SUBNET` is the first usable address.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (Range { network, subnet }, gateway) in self.ranges.iter().zip(self.gateways()) {
            let family = if network.is_ipv4() { "" } else { "IPV6_" };
            // Writing into a String cannot fail.
            let _ok = writeln!(text, "FLANNEL_{family}NETWORK={}/{}", network.network(), network.prefix());
            let _ok = writeln!(text, "FLANNEL_{family}SUBNET={gateway}/{}", subnet.prefix());
        }
        let _ok = writeln!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}", self.mtu, self.ip_masq);
        text
    }

    /// The first usable address of each subnet, this node's on the containers' side.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.ranges.subnets().map(|subnet| match subnet.network() {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(1)).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(1)).into(),
        })
    }

    /// Writes the file, as a whole.
    ///
    /// # Errors
    /// [`SubnetFileError`]; the old file is then still there.
    pub fn write(&self, path: &Path) -> Result<(), SubnetFileError> {
        let fail = |source| SubnetFileError { path: path.to_owned(), source };
        atomic_file::replace(path, &self.to_text()).map_err(fail)
    }
}

/// Whether a subnet file could be written at `path`, without writing one.
///
/// # Errors
/// [`SubnetFileError`], as [`SubnetFile::write`] would fail.
pub fn could_write(path: &Path) -> Result<(), SubnetFileError> {
    atomic_file::could_replace(path).map_err(|source| SubnetFileError { path: path.to_owned(), source })
}

/// The variables that `text` sets, line by line as a shell would take them, without quotes around their values; a later
/// one replaces an earlier one of the same name. What sets none is skipped.
pub fn variables(text: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        Some((name.trim(), value.trim().trim_matches(['"', '\''])))
    })
}

impl TryFrom<PreviousSubnetFile> for SubnetFile {
    type Error = &'static str;

    /// The whole of it, or the first key that is missing.
    fn try_from(read: PreviousSubnetFile) -> Result<Self, Self::Error> {
        let ipv6 = range(read.ipv6_network, read.ipv6_subnet, ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"))?;
        let keys = ("FLANNEL_NETWORK", "FLANNEL_SUBNET");
        let ipv4 = range(read.network, read.subnet, keys)?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(keys.0);
        }
        Ok(Self {
            ranges: Ranges { ipv4, ipv6 },
            mtu: read.mtu.ok_or("FLANNEL_MTU")?,
            ip_masq: read.ip_masq.ok_or("FLANNEL_IPMASQ")?,
        })
    }
}

impl PreviousSubnetFile {
    /// Reads an earlier file. One that is not there says nothing; one that cannot be read is reported and says nothing.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "earlier subnet file not readable, ignored");
                }
                Self::default()
            }
        }
    }

    /// Takes what makes sense from `text`; a later line wins over an earlier one, as in a shell.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut file = Self::default();
        for (name, value) in variables(text) {
            match name {
                "FLANNEL_NETWORK" => file.network = value.parse().ok().map(masked),
                "FLANNEL_SUBNET" => file.subnet = value.parse().ok().map(masked),
                "FLANNEL_IPV6_NETWORK" => file.ipv6_network = value.parse().ok().map(masked6),
                "FLANNEL_IPV6_SUBNET" => file.ipv6_subnet = value.parse().ok().map(masked6),
                "FLANNEL_MTU" => file.mtu = value.parse().ok(),
                "FLANNEL_IPMASQ" => file.ip_masq = value.parse().ok(),
                _ => {}
            }
        }
        file
    }
}

/// The two lines of one family: both, or neither; otherwise the key that is missing.
fn range<N>(
    network: Option<N>,
    subnet: Option<N>,
    keys: (&'static str, &'static str),
) -> Result<Option<Range<N>>, &'static str> {
    match (network, subnet) {
        (Some(network), Some(subnet)) => Ok(Some(Range { network, subnet })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(keys.0),
        (Some(_), None) => Err(keys.1),
    }
}

/// The same network without host bits.
fn masked(network: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(network.network(), network.prefix()).unwrap_or(network)
}

fn masked6(network: Ipv6Network) -> Ipv6Network {
    Ipv6Network::new(network.network(), network.prefix()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file() -> SubnetFile {
        let ipv4 = Range { network: "10.1.0.0/16".parse().unwrap(), subnet: "10.1.15.0/24".parse().unwrap() };
        SubnetFile { ranges: Ranges { ipv4: Some(ipv4), ipv6: None }, mtu: 1450, ip_masq: true }
    }

    fn dual_stack() -> SubnetFile {
        let ipv6 = Range { network: "fd00:1::/48".parse().unwrap(), subnet: "fd00:1:0:15::/64".parse().unwrap() };
        SubnetFile { ranges: Ranges { ipv6: Some(ipv6), ..file().ranges }, ..file() }
    }

    #[test]
    fn lines_are_flannels_in_flannels_order() {
        assert_eq!(
            file().to_text(),
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
    }

    #[test]
    fn a_dual_stack_cluster_has_its_ipv6_lines_before_the_mtu() {
        assert_eq!(
            SubnetFile { ip_masq: false, ..dual_stack() }.to_text(),
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\n\
             FLANNEL_IPV6_NETWORK=fd00:1::/48\nFLANNEL_IPV6_SUBNET=fd00:1:0:15::1/64\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
    }

    #[test]
    fn a_written_file_reads_back_with_the_subnet_as_a_network() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flannel/subnet.env");
        file().write(&path).unwrap();
        let previous = PreviousSubnetFile::read(&path);
        assert_eq!(previous.subnet, Some("10.1.15.0/24".parse().unwrap()));
        assert_eq!(previous.network, Some("10.1.0.0/16".parse().unwrap()));
        assert_eq!((previous.mtu, previous.ip_masq), (Some(1450), Some(true)));
    }

    #[test]
    fn writing_replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flannel/subnet.env");
        file().write(&path).unwrap();
        SubnetFile { mtu: 1400, ..file() }.write(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("FLANNEL_MTU=1400\n"));
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["subnet.env"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = file().write(&path).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn bad_lines_do_not_spoil_good_ones() {
        let text = "# comment\nFLANNEL_NETWORK=10.1.0.0/33\nFLANNEL_SUBNET=\"10.1.15.1/24\"\nnonsense\n\
                    FLANNEL_MTU=\nexport FLANNEL_IPMASQ=true\nFLANNEL_IPV6_SUBNET=fd00::1/64\n";
        let expected = PreviousSubnetFile {
            subnet: Some("10.1.15.0/24".parse().unwrap()),
            ipv6_subnet: Some("fd00::/64".parse().unwrap()),
            ip_masq: Some(true),
            ..PreviousSubnetFile::default()
        };
        assert_eq!(PreviousSubnetFile::parse(text), expected);
    }

    #[test]
    fn a_reader_that_needs_all_of_it_gets_all_or_the_key_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("subnet.env");
        assert!(matches!(SubnetFile::read(&path), Err(ReadSubnetFileError::Missing { .. })));
        assert!(matches!(SubnetFile::read(directory.path()), Err(ReadSubnetFileError::Unreadable { .. })));
        let ipv6_alone = SubnetFile { ranges: Ranges { ipv4: None, ..dual_stack().ranges }, ..file() };
        for file in [file(), dual_stack(), ipv6_alone] {
            file.write(&path).unwrap();
            assert_eq!(SubnetFile::read(&path).unwrap(), file);
            for line in file.to_text().lines() {
                let missing = line.split('=').next().unwrap();
                fs::write(&path, file.to_text().replace(line, "")).unwrap();
                let error = SubnetFile::read(&path).unwrap_err();
                assert!(error.to_string().contains(missing), "{missing}: {error}");
            }
        }
    }

    #[test]
    fn a_missing_file_says_nothing() {
        assert_eq!(PreviousSubnetFile::read(Path::new("/nonexistent/subnet.env")), PreviousSubnetFile::default());
    }
}
