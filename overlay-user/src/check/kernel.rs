//! Which kernel this is. Whether it will do is for it to say, when it is given the agent's own programs
//! ([`rehearsal`](super::rehearsal)); a version says nothing about what distributions have added or left out.

use std::{fs, path::Path};

use super::Finding;

pub(super) fn check() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "of unknown release".to_owned());
    let btf = match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => "with BTF",
        false => "without BTF, which our programs do not need",
    };
    Finding::green("kernel", format!("Linux {} on {}, {btf}", release.trim_end(), std::env::consts::ARCH))
}
