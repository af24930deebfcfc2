//! Child processes whose failure is one line that can be pasted into a shell.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};

/// The cargo that runs this program, or else the one that has compiled it.
pub(crate) fn cargo_path() -> PathBuf {
    env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()).into()
}

/// Cargo in the workspace's root, with nothing to read from a terminal.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(cargo_path());
    cargo.current_dir(workspace()).stdin(Stdio::null());
    cargo
}

/// The workspace's root.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // The owner of a process's directory in /proc is its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", shell(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shell(command));
    }
    Ok(())
}

/// Runs a command to its end and shows nothing of it but, if it fails, the last lines that it wrote to stderr.
pub(crate) fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start `{}`", shell(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = stderr.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        bail!("`{}` failed ({})", shell(command), output.status);
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to stdout; its stderr goes where ours goes.
pub(crate) fn stdout(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("start `{}`", shell(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shell(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Announces a step of a longer task, does it, and prints how long it took.
pub(crate) fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("== {name}");
    let start = Instant::now();
    work().with_context(|| name.to_owned())?;
    println!("== {name}: ok, {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// A command as one would type it: the variables that it sets, the program, the arguments.
pub(crate) fn shell(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.display(), quote(value?))));
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// One word of a shell's command line. A `$` stays bare: setup shows commands with variables for the shell.
fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^~$".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["clippy", "--", "-D", "warnings", "it's"]).env("FLAGS", "a b").current_dir("/");
        assert_eq!(shell(&command), r"FLAGS='a b' cargo clippy -- -D warnings 'it'\''s'");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("false").arg("x")).unwrap_err();
        assert!(error.to_string().starts_with("`false x` failed"), "{error}");
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().starts_with("start `program`"), "{error}");
    }
}
