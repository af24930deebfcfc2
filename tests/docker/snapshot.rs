//! [`Snapshot`]: all that an agent can change on a node, as lines of text.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use overlay_tests::{node::Node, process::output};

/// The state of a node.
pub(crate) struct Snapshot {
    lines: BTreeSet<String>,
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Snapshot {
    /// What a snapshot is made of.
    pub(crate) const PARTS: [&'static str; 11] = [
        "links",
        "addresses",
        "routes",
        "routing rules",
        "iptables",
        "iptables-legacy tables",
        "nftables",
        "sysctls",
        "mounts",
        "files",
        "tcx programs",
    ];

    /// The state of `node` now.
    pub(crate) fn of(node: &Node) -> Self {
        let netns = node.netns();
        let run = |program: &str, arguments: &str| output(netns.command(program).args(arguments.split(' '))).unwrap();
        let [links, addresses, routes, rules, iptables, legacy, nftables, sysctls, mounts, files, tcx] = Self::PARTS;
        let mut snapshot = Self { lines: BTreeSet::new(), programs: BTreeSet::new(), maps: BTreeSet::new() };
        snapshot.add(links, &without_timers(&run("ip", "-o -d link")));
        snapshot.add(addresses, &run("ip", "-o -4 address"));
        snapshot.add(routes, &run("ip", "-4 route show table all"));
        snapshot.add(rules, &run("ip", "rule"));
        for table in ["filter", "nat", "raw", "mangle"] {
            snapshot.add(iptables, &run("iptables", &format!("-t {table} -S")));
        }
        // To list its rules would load tables that nobody has.
        snapshot.add(
            legacy,
            &netns.run(|| fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default()),
        );
        snapshot.add(nftables, &run("nft", "--stateless list ruleset"));
        snapshot.add(sysctls, &netns.run(|| settings(Path::new("/proc/sys/net"))));
        snapshot.add(mounts, &fs::read_to_string("/proc/thread-self/mounts").unwrap());
        // The harness keeps these there, not the agent.
        let harness = [node.subnet_file(), node.run_dir().join("agent.log")];
        let under_run_dir = files_below(node.run_dir());
        for file in under_run_dir.iter().filter(|file| !harness.contains(file)) {
            snapshot.add(files, &file.display().to_string());
        }
        for name in run("ip", "-o link").lines().filter_map(|line| line.split(": ").nth(1)) {
            let name = name.split('@').next().unwrap_or(name);
            for side in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, attached) = netns.run(|| SchedClassifier::query_tcx(name, side)).unwrap();
                for program in attached {
                    snapshot.add(tcx, &format!("{name} {side:?} {}", program.name_as_str().unwrap_or_default()));
                    snapshot.programs.insert(program.id());
                }
            }
        }
        for map in under_run_dir.iter().filter(|file| file.parent().is_some_and(|parent| parent.ends_with("maps"))) {
            snapshot.maps.insert(MapData::from_pin(map).unwrap().info().unwrap().id());
        }
        snapshot
    }

    fn add(&mut self, part: &str, text: &str) {
        self.lines.extend(text.lines().map(|line| format!("{part}: {line}")));
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The lines that `other` does not have.
    pub(crate) fn lines_beyond(&self, other: &Self) -> Vec<String> {
        self.lines.difference(&other.lines).cloned().collect()
    }

    /// Fails unless `part` has the line `line`.
    #[track_caller]
    pub(crate) fn expect_line(&self, part: &str, line: &str) {
        assert!(self.lines.contains(&format!("{part}: {line}")), "no {line:?} in {part}");
    }

    /// The ids of the programs that are attached to interfaces.
    pub(crate) fn programs(&self) -> BTreeSet<u32> {
        self.programs.clone()
    }

    /// The ids of the maps that are pinned.
    pub(crate) fn maps(&self) -> BTreeSet<u32> {
        self.maps.clone()
    }
}

/// What `ip -d link` prints, without what runs down: `gc_timer  297.24`.
fn without_timers(links: &str) -> String {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let without = |line: &str| {
        let words = words(line);
        let is_time = |place: usize| place > 0 && words[place - 1].ends_with("_timer");
        (0..words.len())
            .filter(|&place| !is_time(place))
            .map(|place| words[place].as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    links.lines().map(|line| without(line) + "\n").collect()
}

/// All settings below `directory` that can be read and do not count what happens, one a line.
fn settings(directory: &Path) -> String {
    let setting = |file: PathBuf| {
        let value = fs::read_to_string(&file).ok()?;
        (!file.ends_with("nf_conntrack_count")).then(|| format!("{} {}\n", file.display(), value.trim()))
    };
    files_below(directory).into_iter().filter_map(setting).collect()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_below(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}
