//! [`measure`]: what the kernel's verifier says of the programs.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::CStr,
    fmt, io, mem,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use aya_obj::{
    Object,
    generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type},
};
use overlay_common::Encapsulation;

use crate::programs::Programs;

/// What a program costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// The program.
    pub program: String,
    /// What it was loaded for.
    pub encapsulation: Encapsulation,
    /// Instructions that the verifier has looked at, over all paths. A kernel refuses more than a million.
    pub verified: u32,
    /// The stack of the function that takes most, in bytes. A kernel refuses more than 512 in functions that call each other.
    pub stack: u32,
    /// Instructions that are left of the program.
    pub instructions: u32,
    /// Bytes of machine code; 0 where the kernel interprets.
    pub machine_code: u32,
}

impl fmt::Display for Measured {
    /// A row of the table in `bpf-maps.md`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encapsulation = match self.encapsulation {
            Encapsulation::Udp => "`udp`",
            Encapsulation::Vxlan => "`vxlan`",
        };
        let Self { program, verified, stack, instructions, machine_code, .. } = self;
        write!(f, "| {program:<14} | {encapsulation:<13} | {verified:>8} | {stack:>5} | ")?;
        write!(f, "{instructions:>12} | {machine_code:>12} |")
    }
}

/// The first two lines of the table.
pub const TABLE_HEAD: &str = "\
| program        | encapsulation | verified | stack | instructions | machine code |
|----------------|---------------|----------|-------|--------------|--------------|";

/// Loads every program for both encapsulations and reads what the kernel says of it.
///
/// # Errors
/// When the kernel refuses a program, or says nothing of it.
pub fn measure() -> Result<Vec<Measured>> {
    let mut rows = Vec::new();
    for encapsulation in [Encapsulation::Udp, Encapsulation::Vxlan] {
        // With the fast path on: any time but 0 makes the verifier look at its code.
        let programs = Programs::load_with_fast_path(encapsulation, 1)?;
        let object = relocated(&programs)?;
        let names: BTreeSet<_> = object.programs.keys().collect();
        for program in names {
            let info = programs.info(program)?;
            rows.push(Measured {
                program: program.clone(),
                encapsulation,
                verified: info.verified_instruction_count().context("the kernel does not count instructions")?,
                stack: stack(&verifier_log(&object, program, info.program_type())?)?,
                instructions: info.size_translated().context("the kernel hides the program")? / 8,
                machine_code: info.size_jitted(),
            });
        }
    }
    Ok(rows)
}

/// The object, its instructions pointing at the maps that `programs` use: their `.rodata` is what the verifier
/// decides by which code is dead.
fn relocated(programs: &Programs) -> Result<Object> {
    let mut object = Object::parse(overlay_user::loader::object())?;
    let maps = mem::take(&mut object.maps);
    let fds = maps.iter().map(|(name, map)| Ok((name.as_str(), map_fd(programs.map_by_name(name)?)?, map)));
    let fds: Vec<_> = fds.collect::<Result<_>>()?;
    let text_sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(fds.into_iter(), &text_sections)?;
    object.relocate_calls(&text_sections)?;
    Ok(object)
}

fn map_fd(map: &Map) -> Result<RawFd> {
    match map {
        Map::Array(map)
        | Map::HashMap(map)
        | Map::LruHashMap(map)
        | Map::PerCpuArray(map)
        | Map::PerCpuHashMap(map)
        | Map::RingBuf(map) => Ok(map.fd().as_fd().as_raw_fd()),
        other => bail!("a map of a kind that the programs did not use so far: {other:?}"),
    }
}

/// `BPF_LOG_STATS` of the kernel: the verifier's sums, and not its every step.
const LOG_STATS: u32 = 4;

/// Loads the program `name` once more and returns the verifier's words, which aya keeps to itself when all is well.
fn verifier_log(object: &Object, name: &str, prog_type: bpf_prog_type) -> Result<String> {
    let program = object.programs.get(name).context("no such program")?;
    let function = object.functions.get(&program.function_key()).context("a program without instructions")?;
    let mut log = vec![0; 1 << 16];
    let loaded = load(prog_type, &function.instructions, &program.license, &mut log);
    let text = CStr::from_bytes_until_nul(&log).context("a log without an end")?.to_string_lossy().into_owned();
    loaded.with_context(|| format!("load {name}: {text}"))?;
    Ok(text)
}

fn load(prog_type: bpf_prog_type, instructions: &[bpf_insn], license: &CStr, log: &mut [u8]) -> io::Result<()> {
    // SAFETY: all fields are integers, of which 0 means "not given".
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: `BPF_PROG_LOAD` takes this member of the union.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = prog_type as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    load.log_level = LOG_STATS;
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    // SAFETY: every pointer in `attr` is that of a slice above, with its length, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_LOAD, &raw const attr, size_of::<bpf_attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    Ok(())
}

/// The largest stack in a log: `stack depth 96`, or `stack depth 96+16` where there is more than one function.
fn stack(log: &str) -> Result<u32> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "));
    let line = line.with_context(|| format!("no stack depth in {log:?}"))?;
    let mut depths =
        line.split('+').map(|depth| depth.trim().parse::<u32>().with_context(|| format!("no depth: {line:?}")));
    depths.try_fold(0, |largest, depth| Ok(largest.max(depth?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_of_a_log_is_the_largest_of_its_functions() {
        let log = "verification time 1234 usec\nstack depth 96+0+16\nprocessed 300 insns (limit 1000000)\n";
        assert_eq!(stack(log).unwrap(), 96);
        assert_eq!(stack("stack depth 8\n").unwrap(), 8);
        assert!(stack("processed 300 insns\n").is_err());
    }
}
