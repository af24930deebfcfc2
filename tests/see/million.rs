//! A flow table of a million entries is printed in little memory.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData},
};
use overlay_common::{Flow, FlowKey, Sightings};
use overlay_tests::{
    cluster::agent_program,
    process::command,
    sandbox::{isolated, scratch},
};
use overlay_user::{loader, maps, rundir::RunDir};

const FLOWS: u32 = 1_000_000;
/// In KiB. What is printed has more than 100 MiB.
const LIMIT: u64 = 32 << 10;

/// Pins the maps in `run_dir`, with room for [`FLOWS`] flows, and fills that.
fn fill(run_dir: &RunDir) -> Ebpf {
    run_dir.prepare().unwrap();
    let mut loader = EbpfLoader::new();
    // The kernel evicts from an LRU hash that is nearly full.
    loader.map_max_entries("FLOWS", 2 * FLOWS);
    for name in maps::NAMES {
        loader.map_pin_path(name, run_dir.maps().join(name));
    }
    let mut ebpf = loader.load(loader::object()).unwrap();
    let mut flows: HashMap<&mut MapData, FlowKey, Flow> = ebpf.map_mut("FLOWS").unwrap().try_into().unwrap();
    let seen = Sightings { before: 1, after: 1 };
    for number in 0..FLOWS {
        let [_, a, b, c] = number.to_be_bytes();
        let key = FlowKey::new(6, ([10, 1, 1, a], [b, c]), ([10, 1, 2, 2], [0, 80]));
        flows.insert(key, Flow { outgoing: seen, incoming: seen }, 0).unwrap();
    }
    ebpf
}

/// The most memory in KiB that the process has had so far.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_million_flows_are_printed_one_after_another() {
    isolated(|| {
        let directory = scratch().join("run");
        let _ebpf = fill(&RunDir::new(&directory));
        let mut dump = command(agent_program().unwrap());
        dump.args(["map", "dump", "FLOWS", "-o", "json", "--run-dir"]).arg(&directory);
        let mut child = dump.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The last thousand may be on their way when the process has ended.
        let early = (&mut lines).take(FLOWS as usize - 10_000).count();
        let peak = peak(&child);
        let printed = early + lines.count();
        assert!(child.wait().unwrap().success());
        // The kernel takes no exact count of what it evicts.
        assert!((FLOWS as usize * 99 / 100..FLOWS as usize + 10).contains(&printed), "{printed} lines");
        assert!(peak < LIMIT, "{peak} KiB");
        println!("map dump: {printed} lines, {peak} KiB");
    });
}
