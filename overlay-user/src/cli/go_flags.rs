//! Parses the command line. Those of `overlay agent` and of `overlay check`, which takes the same options, are read as
//! Go's `flag` package would read them, for flanneld's unit files are written for that: one dash or two, a value behind `=`
//! or in the next argument whatever it looks like, and an empty value or environment variable is as good as none.

use std::{env, ffi::OsString};

use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _};

use super::{Cli, cni_name};

/// Parses the arguments of a process, its name first. Prints help, or what is wrong, and exits where clap does.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Cli {
    try_parse(arguments).unwrap_or_else(|error| error.exit())
}

fn try_parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = forget_empty_variables(Cli::command());
    // Only then the agent's command has all its arguments.
    command.build();
    let arguments = rewrite(cni_name::expand(arguments), &command);
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// Makes clap see no environment variable where there is an empty one, as `NAME=` in a unit's environment file.
fn forget_empty_variables(command: Command) -> Command {
    let forget = |argument: Arg| match argument.get_env() {
        Some(name) if env::var_os(name).is_some_and(|value| value.is_empty()) => argument.env(None::<&'static str>),
        _ => argument,
    };
    command.mut_args(forget).mut_subcommands(forget_empty_variables)
}

/// The arguments of commands that take the agent's options in the spelling that clap takes for what Go means; those of
/// other commands as they are.
fn rewrite(given: impl IntoIterator<Item = OsString>, overlay: &Command) -> Vec<OsString> {
    let mut given = given.into_iter();
    let mut rewritten: Vec<OsString> = given.by_ref().take(2).collect();
    let named = rewritten.get(1).filter(|name| ["agent", "check"].iter().any(|takes| name == takes));
    let Some(agent) = named.and_then(|name| overlay.find_subcommand(name)) else {
        return rewritten.into_iter().chain(given).collect();
    };
    while let Some(word) = given.next() {
        let Some((flag, name, value)) = known_flag(&word, agent) else {
            // Whatever it is, clap has something to say about it.
            rewritten.push(word);
            continue;
        };
        let needs_value = flag.get_num_args().is_some_and(|range| range.min_values() > 0);
        let value = match value {
            None if needs_value => given.next(),
            value => value.map(OsString::from),
        };
        match value {
            Some(value) if value.is_empty() && flag.get_default_values().is_empty() => {}
            Some(value) => {
                let mut joined = OsString::from(format!("--{name}="));
                joined.push(value);
                rewritten.push(joined);
            }
            None => rewritten.push(format!("--{name}").into()),
        }
    }
    rewritten
}

/// The agent's argument that `word` names with one dash or two, the name, and the value behind `=`.
fn known_flag<'a, 'b>(word: &'a OsString, agent: &'b Command) -> Option<(&'b Arg, &'a str, Option<&'a str>)> {
    let text = word.to_str()?.strip_prefix('-')?;
    let text = text.strip_prefix('-').unwrap_or(text);
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let flag = agent.get_arguments().find(|argument| argument.get_long() == Some(name))?;
    let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    (takes_value || value.is_none()).then_some((flag, name, value))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;
    use crate::cli::{AgentArgs, Command as Parsed, MapCommand, MapOutput, Output};

    fn try_agent(line: &str) -> Result<AgentArgs, clap::Error> {
        let words = ["overlay", "agent"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        match try_parse(words.map(OsString::from))?.command {
            Parsed::Agent(agent) => Ok(*agent),
            other => panic!("{other:?}"),
        }
    }

    fn agent(line: &str) -> AgentArgs {
        try_agent(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_dash_and_two_mean_the_same_with_the_value_behind_or_after() {
        for line in [
            "-etcd-endpoints=http://a:1,http://b:2 -iface=eth1 -iface=eth2 -ip-masq -v=4",
            "--etcd-endpoints http://a:1,http://b:2 --iface eth1 --iface eth2 --ip-masq=true --v=4",
            "-etcd-endpoints http://a:1,http://b:2 --iface=eth1 -iface eth2 -ip-masq=T -v 4",
        ] {
            let agent = agent(line);
            assert_eq!(agent.datastore.etcd_endpoints, ["http://a:1", "http://b:2"], "{line}");
            assert_eq!(agent.iface, ["eth1", "eth2"], "{line}");
            assert!(agent.ip_masq, "{line}");
            assert_eq!(agent.flanneld.log_level(), "debug", "{line}");
        }
    }

    #[test]
    fn a_switch_takes_what_go_takes_for_true_and_false() {
        for (value, is) in [("1", true), ("t", true), ("TRUE", true), ("0", false), ("F", false), ("False", false)] {
            assert_eq!(agent(&format!("-ip-masq={value}")).ip_masq, is, "{value}");
        }
        assert_eq!(try_agent("-ip-masq=perhaps").unwrap_err().kind(), ErrorKind::ValueValidation);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        let agent = agent("-etcd-username -u -etcd-password --iface");
        assert_eq!(agent.datastore.etcd_username.as_deref(), Some("-u"));
        assert_eq!(agent.datastore.etcd_password.as_deref(), Some("--iface"));
        assert!(agent.iface.is_empty());
    }

    #[test]
    fn an_empty_value_is_as_good_as_none() {
        let agent = agent("-etcd-cafile= --public-ip= -iface= -kube-api-url=");
        assert_eq!((agent.datastore.etcd_cafile, agent.public_ip, agent.iface), (None, None, Vec::new()));
        assert!(agent.flanneld.ignored.given().is_empty());
    }

    #[test]
    fn the_last_of_several_counts() {
        assert_eq!(agent("-etcd-prefix=/a -ip-masq -etcd-prefix=/b -ip-masq=0").datastore.etcd_prefix, "/b");
    }

    #[test]
    fn every_flag_of_flannelds_is_known() {
        // main.go of flannel 0.28, in its order.
        let flags = "etcd-endpoints=http://a:1 etcd-prefix=/p etcd-keyfile=k etcd-certfile=c etcd-cafile=a etcd-username=u \
                     etcd-password=p iface=eth0 iface-regex=e iface-can-reach=192.0.2.1 subnet-file=f public-ip=192.0.2.2 \
                     public-ipv6=fd00::1 subnet-lease-renew-margin=60 ip-masq ip-masq-fully-random-disable kube-subnet-mgr \
                     kube-api-url=u kube-annotation-prefix=p kubeconfig-file=f healthz-ip=127.0.0.1 healthz-port=1 \
                     iptables-resync=5 iptables-forward-rules=false ip-blackhole-route net-config-path=f \
                     set-node-network-unavailable=false v=2 vmodule=a=1 log_backtrace_at=a.go:1";
        for dashes in ["-", "--"] {
            let line: Vec<_> = flags.split_whitespace().map(|flag| format!("{dashes}{flag}")).collect();
            let agent = agent(&line.join(" "));
            assert!(agent.public_ipv6.is_some());
            let flanneld = agent.flanneld;
            assert_eq!(flanneld.healthz(), Some(([127, 0, 0, 1], 1).into()));
            assert!(flanneld.kube_subnet_mgr);
            assert_eq!(flanneld.ignored.given().len(), 9);
            for (flag, kind) in [("version", ErrorKind::DisplayVersion), ("help", ErrorKind::DisplayHelp)] {
                assert_eq!(try_agent(&format!("{dashes}{flag}")).unwrap_err().kind(), kind);
            }
        }
        assert_eq!(try_agent("-no-such-flag").unwrap_err().kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn every_flag_has_a_variable_named_after_it() {
        let command = Cli::command();
        for argument in command.find_subcommand("agent").unwrap().get_arguments() {
            let name = argument.get_long().unwrap().to_uppercase().replace('-', "_");
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert!(["FLANNELD_", "OVERLAY_"].iter().any(|prefix| variable == format!("{prefix}{name}")), "{variable}");
        }
    }

    #[test]
    fn check_takes_what_the_agent_takes() {
        let line = ["overlay", "check", "-iface=eth1", "-ip-masq", "-public-ip=", "-o", "json"];
        let Parsed::Check(check) = try_parse(line.map(OsString::from)).unwrap().command else { panic!("no check") };
        assert_eq!(
            (check.agent.iface, check.agent.ip_masq, check.output),
            (vec!["eth1".to_owned()], true, Output::Json)
        );
    }

    #[test]
    fn other_commands_keep_their_short_options() {
        let line = ["overlay", "map", "dump", "routes", "-ojson"];
        let Parsed::Map(MapCommand::Dump { output, .. }) = try_parse(line.map(OsString::from)).unwrap().command else {
            panic!("no map dump")
        };
        assert_eq!(output, MapOutput::Json);
    }
}
