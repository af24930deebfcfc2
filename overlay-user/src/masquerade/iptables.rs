//! Our chains in iptables' tables, through iptables or ip6tables.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::family::Family;
use super::{RulesError, not_run, refused};

/// What the names of our chains begin with, this network's and others'.
pub(super) const OUR_CHAINS: &str = "OVERLAY-";

/// A built-in chain that our chain is called from.
pub(super) struct Hook {
    /// Its table.
    pub(super) table: &'static str,
    /// Its name.
    pub(super) parent: &'static str,
    /// Where among the others' rules of it ours belongs; none: nowhere.
    pub(super) placement: fn(&[&str]) -> Option<Placement>,
}

/// Where the jump to our chain belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Where it is; at the end when it is nowhere.
    Anywhere,
    /// Directly behind this many of the others' rules.
    Behind(usize),
}

/// The two implementations of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With tables of its own in the kernel.
    Legacy,
    /// On top of nftables.
    Nft,
}

/// The program of one implementation for one family, if it is installed.
pub(super) async fn find(family: Family, kind: Kind) -> Option<String> {
    let name = family.iptables();
    let own_name = match kind {
        Kind::Legacy => format!("{name}-legacy"),
        Kind::Nft => format!("{name}-nft"),
    };
    for program in [own_name, name.to_owned()] {
        let Ok(output) = Command::new(&program).arg("--version").output().await else { continue };
        // "iptables v1.8.9 (nf_tables)"; before 1.8 there was one kind and no word for it.
        let is_nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
        if output.status.success() && is_nft == (kind == Kind::Nft) {
            return Some(program);
        }
    }
    None
}

/// What the program prints of `table` with `-S`.
pub(super) async fn list(program: &str, table: &str) -> Result<String, RulesError> {
    // Waits for the lock of another iptables that is at work.
    run(program, &["-w", "5", "-t", table, "-S"], "").await
}

/// Makes our chain have `rules` and be called, or be gone when there are none. Says whether anything had to be done.
pub(super) async fn ensure(
    program: &str,
    hook: &Hook,
    chain: &str,
    rules: Option<&[String]>,
) -> Result<bool, RulesError> {
    let listing = list(program, hook.table).await?;
    let Some(script) = plan(&listing, hook, chain, rules) else { return Ok(false) };
    run(&format!("{program}-restore"), &["-w", "5", "--noflush"], &script).await?;
    Ok(true)
}

/// The transaction that makes `listing` (`iptables -S`) as it has to be; none if it is.
fn plan(listing: &str, hook: &Hook, chain: &str, rules: Option<&[String]>) -> Option<String> {
    let parent = format!("-A {} ", hook.parent);
    let jump = format!("{parent}-j {chain}");
    let callers: Vec<&str> = listing.lines().filter(|line| line.starts_with(&parent)).collect();
    // Other networks' jumps stand with ours, in whatever order.
    let is_foreign = |rule: &&str| !rule.starts_with(&format!("{parent}-j {OUR_CHAINS}"));
    let others: Vec<&str> = callers.iter().copied().filter(is_foreign).collect();

    let wanted = rules.zip((hook.placement)(&others));
    let jumps: Vec<usize> = (0..callers.len()).filter(|&position| callers[position] == jump).collect();
    let declared = listing.lines().any(|line| line == format!("-N {chain}"));
    let (head, deletions) = (format!("*{}\n:{chain} - [0:0]\n", hook.table), delete(&jump).repeat(jumps.len()));
    let Some((rules, placement)) = wanted else {
        return (declared || !jumps.is_empty()).then(|| format!("{head}{deletions}-X {chain}\nCOMMIT\n"));
    };

    let prefix = format!("-A {chain} ");
    let present = listing.lines().filter_map(|line| line.strip_prefix(&prefix));
    let in_place = match (jumps.as_slice(), placement) {
        ([_], Placement::Anywhere) => true,
        ([ours], Placement::Behind(count)) => callers[..*ours].iter().filter(|&rule| is_foreign(rule)).count() == count,
        _ => false,
    };
    if declared && in_place && present.eq(rules.iter().map(String::as_str)) {
        return None;
    }
    let rules: String = rules.iter().map(|rule| format!("{prefix}{rule}\n")).collect();
    let insertion = match placement {
        Placement::Anywhere => jump,
        Placement::Behind(count) => {
            let without_ours: Vec<&str> = callers.iter().copied().filter(|rule| *rule != jump).collect();
            let before = others.get(count).and_then(|next| without_ours.iter().position(|rule| rule == next));
            // iptables counts positions from 1.
            format!("-I {} {} -j {chain}", hook.parent, before.unwrap_or(without_ours.len()) + 1)
        }
    };
    Some(format!("{head}{rules}{deletions}{insertion}\nCOMMIT\n"))
}

/// The line that takes away what the line `rule` has added.
fn delete(rule: &str) -> String {
    format!("-D{}\n", rule.trim_start_matches("-A"))
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
mod tests;
