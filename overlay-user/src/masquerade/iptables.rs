//! iptables' FORWARD chain, through iptables.

use std::process::Stdio;

use ipnetwork::Ipv4Network;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{RulesError, not_run, refused};

/// The chain in which Docker leaves room for others' decisions, in front of its own.
const DOCKER_USER: &str = "-A FORWARD -j DOCKER-USER";

/// What the jumps to our chains begin with, this network's and others'.
const OUR_JUMPS: &str = "-A FORWARD -j OVERLAY-FWD-";

/// The two implementations of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With tables of its own in the kernel.
    Legacy,
    /// On top of nftables.
    Nft,
}

/// The program of one implementation, if it is installed.
pub(super) async fn find(kind: Kind) -> Option<&'static str> {
    let own_name = match kind {
        Kind::Legacy => "iptables-legacy",
        Kind::Nft => "iptables-nft",
    };
    for program in [own_name, "iptables"] {
        let Ok(output) = Command::new(program).arg("--version").output().await else { continue };
        // "iptables v1.8.9 (nf_tables)"; before 1.8 there was one kind and no word for it.
        let is_nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
        if output.status.success() && is_nft == (kind == Kind::Nft) {
            return Some(program);
        }
    }
    None
}

/// Makes our chain accept `network`, or be gone when there is none. Says whether anything had to be done.
pub(super) async fn ensure(program: &str, chain: &str, network: Option<Ipv4Network>) -> Result<bool, RulesError> {
    // Waits for the lock of another iptables that is at work.
    let listing = run(program, &["-w", "5", "-S"], "").await?;
    let Some(script) = plan(&listing, chain, network) else { return Ok(false) };
    run(&format!("{program}-restore"), &["-w", "5", "--noflush"], &script).await?;
    Ok(true)
}

/// The transaction that makes `listing` (`iptables -S`) as it has to be; none if it is.
///
/// The jump to our chain stands behind DOCKER-USER, where the operator's own rules come first and Docker's drops come
/// later; without Docker it stands at the end, and whatever others put in front decides first.
fn plan(listing: &str, chain: &str, network: Option<Ipv4Network>) -> Option<String> {
    let declared = listing.lines().any(|line| line == format!("-N {chain}"));
    let prefix = format!("-A {chain} ");
    let present: Vec<&str> = listing.lines().filter(|line| line.starts_with(&prefix)).collect();
    let jump = format!("-A FORWARD -j {chain}");
    let forward: Vec<&str> = listing.lines().filter(|line| line.starts_with("-A FORWARD ")).collect();
    let jumps = forward.iter().filter(|line| **line == jump).count();
    let delete_jumps = format!("-D FORWARD -j {chain}\n").repeat(jumps);

    let Some(network) = network else {
        let gone = !declared && jumps == 0;
        return (!gone).then(|| format!("*filter\n:{chain} - [0:0]\n{delete_jumps}-X {chain}\nCOMMIT\n"));
    };
    let accepts = [format!("{prefix}-s {network} -j ACCEPT"), format!("{prefix}-d {network} -j ACCEPT")];
    let others: Vec<&str> = forward.iter().copied().filter(|line| *line != jump).collect();
    let behind_docker = others.iter().rposition(|line| *line == DOCKER_USER);
    let in_place = jumps == 1
        && behind_docker.is_none_or(|docker| {
            let ours = forward.iter().position(|line| *line == jump);
            ours.is_some_and(|ours| {
                ours > docker && others[docker + 1..ours].iter().all(|line| line.starts_with(OUR_JUMPS))
            })
        });
    if declared && in_place && present == accepts {
        return None;
    }
    let insert = match behind_docker {
        // Positions count from 1, and ours comes after it.
        Some(docker) => format!("-I FORWARD {} -j {chain}", docker + 2),
        None => jump,
    };
    let [from, to] = accepts;
    Some(format!("*filter\n:{chain} - [0:0]\n{from}\n{to}\n{delete_jumps}{insert}\nCOMMIT\n"))
}

/// Runs a program with `input` and returns what it prints.
async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, RulesError> {
    let failed = |source| not_run(program, "iptables", source);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refused("accept forwarded overlay traffic", program, &String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str = "OVERLAY-FWD-1";
    const FRESH: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
    const OURS: &str =
        "-N OVERLAY-FWD-1\n-A OVERLAY-FWD-1 -s 10.1.0.0/16 -j ACCEPT\n-A OVERLAY-FWD-1 -d 10.1.0.0/16 -j ACCEPT\n";
    const SET_CHAIN: &str = "*filter\n:OVERLAY-FWD-1 - [0:0]\n-A OVERLAY-FWD-1 -s 10.1.0.0/16 -j ACCEPT\n\
                             -A OVERLAY-FWD-1 -d 10.1.0.0/16 -j ACCEPT\n";

    fn network() -> Option<Ipv4Network> {
        "10.1.0.0/16".parse().ok()
    }

    fn listing(rules: &[&str]) -> String {
        let rules: String = rules.iter().map(|target| format!("-A FORWARD -j {target}\n")).collect();
        format!("{FRESH}{OURS}{rules}")
    }

    #[test]
    fn without_docker_the_jump_is_appended() {
        let expected = format!("{SET_CHAIN}-A FORWARD -j OVERLAY-FWD-1\nCOMMIT\n");
        assert_eq!(plan(FRESH, CHAIN, network()), Some(expected.clone()));
        let others = format!("{FRESH}-A FORWARD -s 192.0.2.0/24 -j DROP\n");
        assert_eq!(plan(&others, CHAIN, network()), Some(expected));
    }

    #[test]
    fn rules_in_place_are_left_alone() {
        let cases: [&[&str]; 5] = [
            &["OVERLAY-FWD-1"],
            &["OVERLAY-FWD-1", "KUBE-FORWARD"],
            &["DOCKER-USER", "OVERLAY-FWD-1", "DOCKER-FORWARD"],
            &["KUBE-FORWARD", "DOCKER-USER", "OVERLAY-FWD-1", "DOCKER-FORWARD"],
            &["DOCKER-USER", "OVERLAY-FWD-7", "OVERLAY-FWD-1", "DOCKER-FORWARD"],
        ];
        for rules in cases {
            assert_eq!(plan(&listing(rules), CHAIN, network()), None, "{rules:?}");
        }
    }

    #[test]
    fn a_jump_in_the_wrong_place_is_moved_behind_docker_user() {
        let cases: [(&[&str], usize, usize); 4] = [
            (&["DOCKER-USER", "DOCKER-FORWARD", "OVERLAY-FWD-1"], 1, 2),
            (&["OVERLAY-FWD-1", "DOCKER-USER", "DOCKER-FORWARD"], 1, 2),
            (&["DOCKER-USER", "OVERLAY-FWD-1", "OVERLAY-FWD-1"], 2, 2),
            (&["KUBE-FORWARD", "DOCKER-USER", "DOCKER-FORWARD"], 0, 3),
        ];
        for (rules, deleted, position) in cases {
            let deletes = "-D FORWARD -j OVERLAY-FWD-1\n".repeat(deleted);
            let expected = format!("{SET_CHAIN}{deletes}-I FORWARD {position} -j OVERLAY-FWD-1\nCOMMIT\n");
            assert_eq!(plan(&listing(rules), CHAIN, network()), Some(expected), "{rules:?}");
        }
    }

    #[test]
    fn another_networks_accepts_are_replaced() {
        let old = listing(&["OVERLAY-FWD-1"]).replace("10.1.0.0", "10.9.0.0");
        assert!(plan(&old, CHAIN, network()).is_some_and(|script| script.starts_with(SET_CHAIN)));
    }

    #[test]
    fn removal_takes_jumps_and_chain_and_only_ours() {
        let expected = "*filter\n:OVERLAY-FWD-1 - [0:0]\n-D FORWARD -j OVERLAY-FWD-1\n-X OVERLAY-FWD-1\nCOMMIT\n";
        let present = listing(&["DOCKER-USER", "OVERLAY-FWD-1"]);
        assert_eq!(plan(&present, CHAIN, None).as_deref(), Some(expected));
        assert_eq!(plan(FRESH, CHAIN, None), None);
        let neighbour = present.replace("OVERLAY-FWD-1", "OVERLAY-FWD-12");
        assert_eq!(plan(&neighbour, CHAIN, None), None, "a longer name is another network's");
    }
}
