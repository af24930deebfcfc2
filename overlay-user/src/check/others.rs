//! Other programs that do the agent's job on this node, found among the processes of this network namespace.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::Finding;

const CHECK: &str = "others";

/// `agent` is the process id of the agent of our own run directory, which is no other.
pub(super) fn check(agent: Option<&str>) -> Finding {
    let others: Vec<String> = processes()
        .filter(|(pid, _)| Some(pid.as_str()) != agent)
        .map(|(pid, what)| format!("{what} (pid {pid})"))
        .collect();
    if others.is_empty() {
        return Finding::green(CHECK, "no flanneld and no agent of another run directory on this node");
    }
    Finding::yellow(
        CHECK,
        format!("{} on this node, too", others.join(", ")),
        "stop it first if it serves the same network; two that serve different networks get along",
    )
}

/// Process ids and what they are.
fn processes() -> impl Iterator<Item = (String, &'static str)> {
    let ours = namespace(Path::new("/proc/thread-self"));
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid = entry.file_name().into_string().ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))?;
        let what = what(&fs::read(entry.path().join("cmdline")).ok()?)?;
        (namespace(&entry.path()) == ours).then_some((pid, what))
    })
}

/// The number of a process's network namespace.
fn namespace(process: &Path) -> Option<u64> {
    fs::metadata(process.join("ns/net")).ok().map(|metadata| metadata.ino())
}

/// Tells by a command line, its words ended by zeros, what a process is, if it does the agent's job.
fn what(command_line: &[u8]) -> Option<&'static str> {
    let mut words = command_line.split(|&byte| byte == 0);
    let program = words.next()?.rsplit(|&byte| byte == b'/').next()?;
    match program {
        b"flanneld" => Some("flanneld"),
        b"overlay" if words.next() == Some(b"agent") => Some("an agent of another run directory"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_by_their_command_lines() {
        assert_eq!(what(b"/opt/bin/flanneld\0-iface=eth0\0"), Some("flanneld"));
        assert!(what(b"/usr/bin/overlay\0agent\0--ip-masq\0").is_some());
        for other in [&b"/usr/bin/overlay\0check\0"[..], b"overlay\0", b"vi\0flanneld\0", b""] {
            assert_eq!(what(other), None);
        }
    }
}
