//! The names of this program under which it is `overlay cni`: a container runtime runs a plugin by its type, without
//! arguments.

use std::{
    ffi::{OsStr, OsString},
    iter,
    path::Path,
};

const NAMES: [&str; 2] = ["overlay-cni", "flannel"];

/// The arguments of a process, its name first, with the subcommand that the name stands for.
pub(super) fn expand(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next();
    let is_plugin = program.as_ref().and_then(|program| Path::new(program).file_name()).is_some_and(is_name);
    program.into_iter().chain(iter::repeat_n(OsString::from("cni"), usize::from(is_plugin))).chain(arguments)
}

fn is_name(name: &OsStr) -> bool {
    NAMES.iter().any(|plugin| name == *plugin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_a_plugins_name_it_is_the_plugin() {
        for (given, expanded) in [
            ("/opt/cni/bin/overlay-cni", "/opt/cni/bin/overlay-cni cni"),
            ("flannel", "flannel cni"),
            ("overlay cni", "overlay cni"),
            ("/usr/bin/overlay", "/usr/bin/overlay"),
        ] {
            let words: Vec<_> = expand(given.split(' ').map(OsString::from)).collect();
            assert_eq!(words.join(OsStr::new(" ")), expanded);
        }
    }
}
