//! Takes passwords off the command line of this process, where every user of the node would read them with `ps`.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    ops::Range,
    os::unix::fs::FileExt as _,
};

/// The option whose value is a password.
const PASSWORD: &[u8] = b"etcd-password";

/// Overwrites the passwords that this process was given as arguments, in the memory that the kernel shows as
/// `/proc/PID/cmdline`. Copies that were made of the arguments before are left alone: make one first.
///
/// # Errors
/// When `/proc` does not let us; the passwords are still to be seen then.
pub fn hide_passwords() -> io::Result<()> {
    let passwords = passwords(&fs::read("/proc/self/cmdline")?);
    if passwords.is_empty() {
        return Ok(());
    }
    let start = start_of_arguments(&fs::read("/proc/self/stat")?).ok_or(ErrorKind::InvalidData)?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    for password in passwords {
        memory.write_all_at(&vec![b'x'; password.len()], start + password.start as u64)?;
    }
    Ok(())
}

/// Where in `cmdline`, whose arguments end with a zero each, passwords are: behind an equals sign or in the next argument, as
/// the command line is parsed.
fn passwords(cmdline: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut awaited) = (0, false);
    for argument in cmdline.split(|&byte| byte == 0) {
        let end = start + argument.len();
        match option(argument).and_then(|option| option.strip_prefix(PASSWORD)) {
            _ if awaited => {
                found.push(start..end);
                awaited = false;
            }
            Some([]) => awaited = true,
            Some([b'=', value @ ..]) => found.push(end - value.len()..end),
            _ => {}
        }
        start = end + 1;
    }
    found
}

/// What an option has behind its one or two dashes.
fn option(argument: &[u8]) -> Option<&[u8]> {
    let option = argument.strip_prefix(b"-")?;
    Some(option.strip_prefix(b"-").unwrap_or(option))
}

/// The address of the first argument: field 48 of `/proc/PID/stat`, in whose second field, in brackets, anything may stand.
fn start_of_arguments(stat: &[u8]) -> Option<u64> {
    let third = stat.iter().rposition(|&byte| byte == b')')? + 1;
    str::from_utf8(&stat[third..]).ok()?.split_whitespace().nth(48 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_every_spelling_and_nothing_else_is() {
        let hidden = |line: &str| {
            let mut line = line.replace(' ', "\0").into_bytes();
            passwords(&line).into_iter().for_each(|range| line[range].fill(b'x'));
            String::from_utf8(line).unwrap().replace('\0', " ")
        };
        for (line, shown) in [
            ("overlay agent --etcd-password secret -v=4 ", "overlay agent --etcd-password xxxxxx -v=4 "),
            ("overlay agent -etcd-password secret ", "overlay agent -etcd-password xxxxxx "),
            ("overlay config get --etcd-password=a=b ", "overlay config get --etcd-password=xxx "),
            ("overlay agent -etcd-password=secret --x ", "overlay agent -etcd-password=xxxxxx --x "),
            ("overlay agent --etcd-password --etcd-password ", "overlay agent --etcd-password xxxxxxxxxxxxxxx "),
            ("overlay agent --etcd-passwords a etcd-password b ", "overlay agent --etcd-passwords a etcd-password b "),
            ("overlay agent --etcd-password ", "overlay agent --etcd-password "),
        ] {
            assert_eq!(hidden(line), shown);
        }
    }

    #[test]
    fn the_arguments_are_found_whatever_the_program_is_called() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b (c) {}\n", fields.join(" "));
        assert_eq!(start_of_arguments(stat.as_bytes()), Some(48));
        assert_eq!(start_of_arguments(b"1 (overlay) S 0"), None);
    }
}
