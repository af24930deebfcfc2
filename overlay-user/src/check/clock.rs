//! Whether somebody keeps this node's clock right. etcd tells no time to compare with.

use super::Finding;

pub(super) fn check() -> Finding {
    // SAFETY: all fields are integers, of which 0 means "nothing to set": the call only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure that is handed over, and nothing else.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer == -1 {
        let error = std::io::Error::last_os_error();
        return Finding::yellow("clock", format!("state of the clock not known: {error}"), "see `timedatectl`");
    }
    if answer == libc::TIME_ERROR || state.status & libc::STA_UNSYNC != 0 {
        return Finding::yellow(
            "clock",
            "the kernel counts its clock as not synchronised",
            "run an NTP client (chrony, systemd-timesyncd): TLS certificates and leases depend on the time",
        );
    }
    Finding::green("clock", format!("synchronised, off by at most {} ms", state.maxerror / 1000))
}
