//! Memory for the maps, computed from their definitions, against what this node has and this control group may take.
//!
//! Kernels from Linux 5.11 on account maps to control groups: `RLIMIT_MEMLOCK` plays no part.

use std::{fs, path::Path};

use aya_obj::generated::bpf_map_type;

use super::Finding;
use crate::{
    loader,
    maps::{self, Capacities, Definition},
};

/// `struct htab_elem` of the kernel, without key and value.
const HASH_ELEMENT: u64 = 48;
/// `struct bucket` of the kernel's hash maps.
const BUCKET: u64 = 16;
const BPF_F_NO_PREALLOC: u32 = 1;

/// Bytes that maps take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    /// As soon as they are there.
    at_start: u64,
    /// With every entry in use.
    when_full: u64,
}

pub(super) fn check(capacities: Capacities) -> Finding {
    let need = match maps::definitions(loader::object(), capacities) {
        Ok(definitions) => sum(definitions.values(), aya::util::nr_cpus().map_or(1, |cpus| cpus as u64)),
        Err(error) => return Finding::red("memory", format!("read the eBPF object: {error}"), "the build is broken"),
    };
    let needed = format!("maps take {} MiB, {} MiB when full", mib(need.at_start), mib(need.when_full));
    let rooms = [("this node", available()), ("this control group", room_in_control_group())];
    let tight =
        rooms.iter().find_map(|(who, room)| room.filter(|&room| room < need.when_full).map(|room| (*who, room)));
    match tight {
        None => Finding::green("memory", needed),
        Some((who, room)) => Finding::yellow(
            "memory",
            format!("{needed}; {who} has {} MiB left", mib(room)),
            "give it more (MemoryMax= of the unit): a map that finds no memory cannot be made or filled",
        ),
    }
}

fn sum<'a>(definitions: impl Iterator<Item = &'a Definition>, cpus: u64) -> Need {
    let needs = definitions.map(|definition| need(definition, cpus));
    needs.fold(Need { at_start: 0, when_full: 0 }, |sum, need| Need {
        at_start: sum.at_start + need.at_start,
        when_full: sum.when_full + need.when_full,
    })
}

fn need(definition: &Definition, cpus: u64) -> Need {
    let round = |size: u32| u64::from(size).next_multiple_of(8);
    let (key, value, entries) = (round(definition.key), round(definition.value), u64::from(definition.entries));
    let is = |kind: bpf_map_type| definition.kind == kind as u32;
    let per_cpu = is(bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH) || is(bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY);
    // One value for each CPU, behind a pointer.
    let value = if per_cpu { 8 + cpus * value } else { value };
    let is_hash =
        [bpf_map_type::BPF_MAP_TYPE_HASH, bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH, bpf_map_type::BPF_MAP_TYPE_LRU_HASH];
    if is_hash.into_iter().any(is) {
        let (buckets, full) = (entries.next_power_of_two() * BUCKET, entries * (HASH_ELEMENT + key + value));
        let in_advance = if definition.flags & BPF_F_NO_PREALLOC == 0 { full } else { 0 };
        return Need { at_start: buckets + in_advance, when_full: buckets + full };
    }
    // Of a ring buffer the number of entries is that of its bytes.
    let bytes = if is(bpf_map_type::BPF_MAP_TYPE_RINGBUF) { entries } else { entries * value };
    Need { at_start: bytes, when_full: bytes }
}

const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What this node has left, in bytes.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// What the control group of this process and those around it have left, in bytes; none: no limit.
fn room_in_control_group() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let own = Path::new("/sys/fs/cgroup").join(own);
    own.ancestors().take_while(|group| group.starts_with("/sys/fs/cgroup")).filter_map(room).min()
}

fn room(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number: no limit.
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_in_advance_is_told_from_what_entries_take() {
        let hash = Definition {
            kind: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
            key: 4,
            value: 12,
            entries: 1000,
            flags: BPF_F_NO_PREALLOC,
        };
        assert_eq!(need(&hash, 4), Need { at_start: 1024 * 16, when_full: 1024 * 16 + 1000 * (48 + 8 + 16) });
        let lru = Definition { kind: bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32, flags: 0, ..hash };
        assert_eq!(need(&lru, 4).at_start, need(&lru, 4).when_full);
        let per_cpu =
            Definition { kind: bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32, value: 8, entries: 22, ..hash };
        assert_eq!(need(&per_cpu, 4).at_start, 22 * (8 + 4 * 8));
    }

    #[test]
    fn our_maps_are_read_from_the_object() {
        let at_start = |capacities| {
            let definitions = maps::definitions(loader::object(), capacities).unwrap();
            assert!(definitions.len() >= maps::NAMES.len());
            sum(definitions.values(), 1).at_start
        };
        // 65,536 flows and 16,384 candidates of 80 bytes are there from the start.
        let usual = at_start(Capacities::default());
        assert!(usual > (65_536 + 16_384) * 80);
        let more = Capacities { flows: 2 * 65_536, ..Capacities::default() };
        assert!(at_start(more) >= usual + 65_536 * 80);
    }
}
