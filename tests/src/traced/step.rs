//! Which system calls change something that outlives the program.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use nix::{libc, unistd::Pid};

/// A system call that has changed something that outlives the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    call: &'static str,
    /// A path, or what is known of it.
    on: String,
}

impl Step {
    /// The same for steps that do the same to things of one kind: files of one directory, rules of one kind.
    #[must_use]
    pub fn kind(&self) -> String {
        let (place, _) = self.on.rsplit_once('/').unwrap_or((&self.on, ""));
        format!("{} {place}", self.call)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.on)
    }
}

/// A system call under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Who makes it.
    pub(super) thread: Pid,
    /// Its number.
    pub(super) number: u64,
    /// What it was given.
    pub(super) arguments: [u64; 6],
}

/// What the program's sockets are for, by descriptor: domain and protocol.
#[derive(Debug, Default)]
pub(super) struct Sockets(HashMap<u64, (u64, u64)>);

/// `bpf` commands whose effect stays when all descriptors are closed. What is loaded or created is not among them: it
/// vanishes with the program until it is pinned or attached.
const BPF: [(u64, &str); 8] = [
    (2, "bpf MAP_UPDATE_ELEM"),
    (3, "bpf MAP_DELETE_ELEM"),
    (OBJ_PIN, "bpf OBJ_PIN"),
    (8, "bpf PROG_ATTACH"),
    (9, "bpf PROG_DETACH"),
    (26, "bpf MAP_UPDATE_BATCH"),
    (28, "bpf LINK_CREATE"),
    (29, "bpf LINK_UPDATE"),
];
const OBJ_PIN: u64 = 6;

/// Calls that change what a path names, and which argument is the path that is new or gone then.
const PATHS: &[(libc::c_long, &str, usize)] = &[
    (libc::SYS_mkdirat, "mkdir", 1),
    (libc::SYS_unlinkat, "unlink", 1),
    (libc::SYS_renameat, "rename", 3),
    (libc::SYS_renameat2, "rename", 3),
    (libc::SYS_linkat, "link", 3),
    (libc::SYS_symlinkat, "symlink", 2),
    (libc::SYS_fchmodat, "chmod", 1),
    (libc::SYS_mount, "mount", 1),
    (libc::SYS_umount2, "umount", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", 0),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink", 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod", 0),
];

/// Calls that write to a descriptor, their first argument; whether the second one is the text itself, not a list of places.
const WRITES: &[(libc::c_long, &str, bool)] = &[
    (libc::SYS_write, "write", true),
    (libc::SYS_pwrite64, "write", true),
    (libc::SYS_writev, "write", false),
    (libc::SYS_sendto, "write", true),
    (libc::SYS_sendmsg, "write", false),
    (libc::SYS_ftruncate, "truncate", false),
    (libc::SYS_fchmod, "chmod", false),
    (libc::SYS_ioctl, "ioctl", false),
];

impl Call {
    /// The step that the call was, when it has succeeded with `result`.
    pub(super) fn step(&self, result: i64, sockets: &mut Sockets) -> Option<Step> {
        let number = libc::c_long::try_from(self.number).ok()?;
        let step = |call, on| Some(Step { call, on });
        if let Some((_, call, path)) = PATHS.iter().find(|(path_call, ..)| *path_call == number) {
            return step(call, self.text(self.arguments[*path]));
        }
        if let Some((_, call, is_text)) = WRITES.iter().find(|(write_call, ..)| *write_call == number) {
            return self.write(call, *is_text, sockets);
        }
        match number {
            libc::SYS_bpf => {
                let (command, call) = BPF.iter().find(|(command, _)| *command == self.arguments[0])?;
                // The path's address is the first field of what a pin is told.
                let path = if *command == OBJ_PIN { self.text(self.word(self.arguments[1])) } else { String::new() };
                step(call, path)
            }
            libc::SYS_openat if self.arguments[2] & libc::O_CREAT as u64 != 0 => {
                let path = self.text(self.arguments[1]);
                // Settings of the kernel's are all there.
                if path.starts_with("/proc/") { None } else { step("open", path) }
            }
            libc::SYS_socket => {
                sockets.0.insert(result.try_into().ok()?, (self.arguments[0], self.arguments[2]));
                None
            }
            // Another program begins or ends; what it does itself is not seen.
            #[cfg(target_arch = "x86_64")]
            libc::SYS_vfork | libc::SYS_fork => step("run", "a program".to_owned()),
            libc::SYS_clone if self.arguments[0] & libc::CLONE_THREAD as u64 == 0 => {
                step("run", "a program".to_owned())
            }
            // The flags are the first field of what this one is told.
            libc::SYS_clone3 if self.word(self.arguments[0]) & libc::CLONE_THREAD as u64 == 0 => {
                step("run", "a program".to_owned())
            }
            libc::SYS_wait4 if result > 0 => step("see the end of", "a program".to_owned()),
            _ => None,
        }
    }

    /// What is written to the descriptor that is the first argument.
    fn write(&self, call: &'static str, is_text: bool, sockets: &Sockets) -> Option<Step> {
        let descriptor = self.arguments[0];
        // The log.
        if descriptor <= 2 {
            return None;
        }
        let target = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.thread)).ok()?;
        let is_file = target.starts_with("/") && target != Path::new("/dev/null");
        if is_file {
            return Some(Step { call, on: target.to_string_lossy().into_owned() });
        }
        let (domain, protocol) = *sockets.0.get(&descriptor)?;
        match i32::try_from(domain).ok()? {
            libc::AF_NETLINK if protocol == libc::NETLINK_ROUTE as u64 && is_text => {
                let kind = self.word(self.arguments[1]).to_ne_bytes();
                let kind = u16::from_ne_bytes([kind[4], kind[5]]);
                // Of each four, the third asks.
                (kind >= 16 && kind % 4 != 2).then(|| Step { call: "netlink", on: format!("message {kind}") })
            }
            libc::AF_INET if call == "write" => Some(Step { call: "send", on: "the datastore".to_owned() }),
            _ => None,
        }
    }

    /// Eight bytes of the program's memory.
    fn word(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// A text in the program's memory, up to its zero.
    fn text(&self, address: u64) -> String {
        let mut bytes = [0; 256];
        let read = self.read(address, &mut bytes);
        String::from_utf8_lossy(bytes[..read].split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }

    /// Reads the program's memory, as much as there is; returns how many bytes.
    fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let memory = File::open(format!("/proc/{}/mem", self.thread));
        memory.and_then(|memory| memory.read_at(bytes, address)).unwrap_or(0)
    }
}
