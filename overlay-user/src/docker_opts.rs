//! Options for Docker's daemon from `subnet.env`, as flannel's `mk-docker-opts.sh` makes them.

use std::fmt::Write as _;

use ipnetwork::IpNetwork;

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

/// The options file that belongs to the text of a `subnet.env`; what that does not say is left out.
///
/// Docker must masquerade exactly when the agent does not: `--ip-masq` is the inverse of `FLANNEL_IPMASQ`.
#[must_use]
pub fn docker_opts(subnet_env: &str, format: &DockerOptsFormat) -> String {
    let both = !format.individual && !format.combined;
    let options = options(subnet_env, format.ip_masq);
    let mut text = String::new();
    if format.individual || both {
        for (key, option) in &options {
            // Writing into a String cannot fail.
            let _ok = writeln!(text, "DOCKER_OPT_{key}=\"{option}\"");
        }
    }
    if format.combined || both {
        // The blank in front is the script's, and its readers' tests may compare.
        let all: String = options.iter().map(|(_, option)| format!(" {option}")).collect();
        let _ok = writeln!(text, "{}=\"{all}\"", format.combined_key);
    }
    text
}

fn options(subnet_env: &str, with_ip_masq: bool) -> Vec<(&'static str, String)> {
    let value = |wanted: &str| {
        let find = |line: &str| {
            let (key, value) = line.trim().split_once('=')?;
            (key == wanted).then(|| value.trim_matches(['"', '\'']).to_owned())
        };
        subnet_env.lines().rev().find_map(find).filter(|value| !value.is_empty())
    };
    // Only what is an address or a number: the file becomes shell input.
    let bip = value("FLANNEL_SUBNET").filter(|subnet| subnet.parse::<IpNetwork>().is_ok());
    let ip_masq = value("FLANNEL_IPMASQ").and_then(|value| value.parse::<bool>().ok()).filter(|_| with_ip_masq);
    let mtu = value("FLANNEL_MTU").and_then(|value| value.parse::<u32>().ok());
    let bip = bip.map(|bip| ("BIP", format!("--bip={bip}")));
    let ip_masq = ip_masq.map(|masq| ("IPMASQ", format!("--ip-masq={}", !masq)));
    let mtu = mtu.map(|mtu| ("MTU", format!("--mtu={mtu}")));
    bip.into_iter().chain(ip_masq).chain(mtu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET_ENV: &str =
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n";
    const INDIVIDUAL: &str = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
                              DOCKER_OPT_MTU=\"--mtu=1472\"\n";
    const COMBINED: &str = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";

    #[test]
    fn each_flag_writes_what_flannels_script_writes() {
        let with = |change: fn(&mut DockerOptsFormat)| {
            let mut format = DockerOptsFormat::default();
            change(&mut format);
            docker_opts(SUBNET_ENV, &format)
        };
        assert_eq!(with(|_| {}), format!("{INDIVIDUAL}{COMBINED}"));
        assert_eq!(with(|format| format.individual = true), INDIVIDUAL);
        assert_eq!(with(|format| format.combined = true), COMBINED);
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
    fn docker_masquerades_exactly_when_the_agent_does_not() {
        let format = DockerOptsFormat { individual: true, ..DockerOptsFormat::default() };
        let text = |masq| docker_opts(&SUBNET_ENV.replace("IPMASQ=false", masq), &format);
        assert!(text("IPMASQ=true").contains("--ip-masq=false"));
        assert!(text("IPMASQ=false").contains("--ip-masq=true"));
    }

    #[test]
    fn what_is_no_address_or_number_never_reaches_the_shell() {
        let text = docker_opts("FLANNEL_SUBNET=$(reboot)\nFLANNEL_MTU=1;2\n", &DockerOptsFormat::default());
        assert_eq!(text, "DOCKER_OPTS=\"\"\n");
    }
}
