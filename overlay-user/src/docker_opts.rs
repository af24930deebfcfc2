//! Options for Docker's daemon from `subnet.env`, as flannel's `mk-docker-opts.sh` makes them, which knows IPv4 alone; and
//! those by which Docker's default bridge gets IPv6.

mod route;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use ipnetwork::{Ipv4Network, Ipv6Network};

pub use self::route::routed_away;
use crate::subnet_file::variables;

/// What the names of variables with one option begin with.
const PREFIX: &str = "DOCKER_OPT_";

/// What to write. Neither `individual` nor `combined`: both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOptsFormat {
    /// `-i`: one variable for each option, `DOCKER_OPT_MTU="--mtu=1450"`.
    pub individual: bool,
    /// `-c`: all options in one variable.
    pub combined: bool,
    /// `-k`: the name of that variable.
    pub combined_key: String,
    /// Off with `-m`: no `--ip-masq`, for a Docker too old to know it.
    pub ip_masq: bool,
}

impl Default for DockerOptsFormat {
    fn default() -> Self {
        Self { individual: false, combined: false, combined_key: "DOCKER_OPTS".to_owned(), ip_masq: true }
    }
}

/// There are no options to be made of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerOptsError {
    /// A line of `subnet.env` cannot be an option.
    #[error("{name}={value}: must be {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it is set to.
        value: String,
        /// What it could be set to.
        expected: &'static str,
    },
    /// A shell has no such variable.
    #[error("--combined-key {0:?}: must be the name of a shell variable")]
    Key(String),
    /// A variable of the environment cannot be written as it is.
    #[error("{0} in the environment: must not have a quote, a backslash, a dollar sign or more than one line")]
    Environment(String),
}

/// The options file that belongs to the text of a `subnet.env`; what that does not say is left out.
///
/// Docker must masquerade exactly when the agent does not: `--ip-masq` is the inverse of `FLANNEL_IPMASQ`. As with the
/// script, `DOCKER_OPT_...` variables of the `environment` count as options too, and the combined variable begins with
/// what it already holds there.
///
/// # Errors
/// [`DockerOptsError`]. The file becomes shell input, so nothing but addresses and numbers gets from `subnet.env` to it.
pub fn docker_opts(
    subnet_env: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    format: &DockerOptsFormat,
) -> Result<String, DockerOptsError> {
    let key = &format.combined_key;
    if !is_variable(key) {
        return Err(DockerOptsError::Key(key.clone()));
    }
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in environment {
        if value.is_empty() || !(name == *key || name.starts_with(PREFIX)) {
            continue;
        }
        if value.contains(['"', '\\', '$', '`', '\n']) || !is_variable(&name) {
            return Err(DockerOptsError::Environment(name));
        }
        given.insert(name, value);
    }
    // The script puts a blank behind what was there, and one in front of each option.
    let before = given.get(key).map(|value| format!("{value} ")).unwrap_or_default();
    given.retain(|name, _| name.starts_with(PREFIX));
    given.extend(options(subnet_env, format.ip_masq)?);

    let both = !format.individual && !format.combined;
    let mut text = String::new();
    if format.individual || both {
        for (name, option) in &given {
            // Writing into a String cannot fail.
            let _ok = writeln!(text, "{name}=\"{option}\"");
        }
    }
    if format.combined || both {
        let all: String = given.values().map(|option| format!(" {option}")).collect();
        let _ok = writeln!(text, "{key}=\"{before}{all}\"");
    }
    Ok(text)
}

/// The options that `subnet.env` asks for, by the name of their variables.
fn options(subnet_env: &str, with_ip_masq: bool) -> Result<Vec<(String, String)>, DockerOptsError> {
    let bip = parse::<Ipv4Network>(subnet_env, "FLANNEL_SUBNET", "an IPv4 address with a length")?;
    let ipv6 = parse::<Ipv6Network>(subnet_env, "FLANNEL_IPV6_SUBNET", "an IPv6 address with a length")?;
    let masquerades = match with_ip_masq {
        true => parse::<bool>(subnet_env, "FLANNEL_IPMASQ", "true or false")?,
        false => None,
    };
    let mtu = parse::<u32>(subnet_env, "FLANNEL_MTU", "a number")?;
    let options = [
        bip.map(|bip| ("BIP", format!("--bip={bip}"))),
        // Without the subnet Docker refuses to start with --ipv6, or takes one of its own. It has the first address itself.
        ipv6.map(|_| ("IPV6", "--ipv6".to_owned())),
        ipv6.map(|ipv6| ("FIXED_CIDR_V6", format!("--fixed-cidr-v6={}/{}", ipv6.network(), ipv6.prefix()))),
        masquerades.map(|masquerades| ("IPMASQ", format!("--ip-masq={}", !masquerades))),
        mtu.map(|mtu| ("MTU", format!("--mtu={mtu}"))),
    ];
    Ok(options.into_iter().flatten().map(|(name, option)| (format!("{PREFIX}{name}"), option)).collect())
}

/// What `subnet.env` sets `name` to. Unset and empty are the same.
fn parse<T: FromStr>(
    subnet_env: &str,
    name: &'static str,
    expected: &'static str,
) -> Result<Option<T>, DockerOptsError> {
    let set = variables(subnet_env).rev().find(|(variable, _)| *variable == name);
    let Some((_, value)) = set.filter(|(_, value)| !value.is_empty()) else { return Ok(None) };
    let wrong = |_| DockerOptsError::Value { name, value: value.to_owned(), expected };
    value.parse().map(Some).map_err(wrong)
}

fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.chars().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET_ENV: &str =
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n";
    const INDIVIDUAL: &str = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
                              DOCKER_OPT_MTU=\"--mtu=1472\"\n";
    const COMBINED: &str = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";

    fn with(change: impl FnOnce(&mut DockerOptsFormat)) -> String {
        let mut format = DockerOptsFormat::default();
        change(&mut format);
        docker_opts(SUBNET_ENV, [], &format).unwrap()
    }

    #[test]
    fn each_flag_writes_what_flannels_script_writes() {
        assert_eq!(with(|_| {}), format!("{INDIVIDUAL}{COMBINED}"));
        assert_eq!(with(|format| format.individual = true), INDIVIDUAL);
        assert_eq!(with(|format| format.combined = true), COMBINED);
        assert_eq!(
            with(|format| (format.individual, format.combined) = (true, true)),
            format!("{INDIVIDUAL}{COMBINED}")
        );
        assert_eq!(
            with(|format| format.combined_key = "CUSTOM_KEY".to_owned()),
            format!("{INDIVIDUAL}{}", COMBINED.replace("DOCKER_OPTS", "CUSTOM_KEY"))
        );
        assert_eq!(
            with(|format| format.ip_masq = false),
            "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_MTU=\"--mtu=1472\"\n\
             DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n"
        );
    }

    #[test]
    fn an_ipv6_subnet_becomes_that_of_dockers_bridge_beside_the_other_or_alone() {
        let ipv6 = "FLANNEL_IPV6_NETWORK=fd00:1::/48\nFLANNEL_IPV6_SUBNET=fd00:1:0:4a::1/64\n";
        let text = |subnet_env: &str| docker_opts(subnet_env, [], &DockerOptsFormat::default()).unwrap();
        let individual = "DOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=fd00:1:0:4a::/64\"\nDOCKER_OPT_IPV6=\"--ipv6\"\n";
        assert_eq!(
            text(ipv6),
            format!("{individual}DOCKER_OPTS=\" --fixed-cidr-v6=fd00:1:0:4a::/64 --ipv6\"\n"),
            "Docker has IPv4 in any case, and of its own then"
        );
        let combined =
            "DOCKER_OPTS=\" --bip=10.1.74.1/24 --fixed-cidr-v6=fd00:1:0:4a::/64 --ip-masq=true --ipv6 --mtu=1472\"\n";
        let both = text(&format!("{SUBNET_ENV}{ipv6}"));
        assert!(both.ends_with(combined) && individual.lines().all(|line| both.contains(line)), "{both}");
    }

    #[test]
    fn docker_masquerades_exactly_when_the_agent_does_not() {
        let text = |masq| {
            let subnet_env = SUBNET_ENV.replace("IPMASQ=false", masq);
            docker_opts(&subnet_env, [], &DockerOptsFormat::default())
        };
        assert!(text("IPMASQ=true").unwrap().contains("--ip-masq=false"));
        assert!(text("IPMASQ=false").unwrap().contains("--ip-masq=true"));
        assert!(!text("IPMASQ=").unwrap().contains("--ip-masq"));
        assert!(text("IPMASQ=maybe").is_err());
    }

    #[test]
    fn options_in_the_environment_are_kept() {
        let environment = [
            ("DOCKER_OPTS", "--debug"),
            ("DOCKER_OPT_HOST", "--host=tcp://127.0.0.1:2375"),
            ("DOCKER_OPT_MTU", "--mtu=9000"),
            ("DOCKER_HOST", "nowhere"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = docker_opts("FLANNEL_MTU=1450\n", environment, &DockerOptsFormat::default()).unwrap();
        assert_eq!(
            text,
            "DOCKER_OPT_HOST=\"--host=tcp://127.0.0.1:2375\"\nDOCKER_OPT_MTU=\"--mtu=1450\"\n\
             DOCKER_OPTS=\"--debug  --host=tcp://127.0.0.1:2375 --mtu=1450\"\n"
        );
    }

    #[test]
    fn what_a_shell_would_take_for_more_than_a_value_is_refused() {
        let format = DockerOptsFormat::default();
        for subnet_env in [
            "FLANNEL_SUBNET=$(reboot)",
            "FLANNEL_SUBNET=10.1.74.1/33",
            "FLANNEL_MTU=1;2",
            "FLANNEL_IPV6_SUBNET=fd00::$(id)/64",
        ] {
            assert!(docker_opts(subnet_env, [], &format).is_err(), "{subnet_env}");
        }
        let environment = [("DOCKER_OPT_X".to_owned(), "\"; reboot".to_owned())];
        assert!(docker_opts("", environment, &format).is_err());
        assert!(docker_opts("", [], &DockerOptsFormat { combined_key: "A B".to_owned(), ..format }).is_err());
        assert_eq!(docker_opts("", [], &DockerOptsFormat::default()).unwrap(), "DOCKER_OPTS=\"\"\n");
    }
}
