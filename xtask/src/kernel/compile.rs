//! Compiles what runs inside, and learns from cargo where it is.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;
use serde::Deserialize;

use crate::command::{cargo, stdout};

/// The agent, as it is handed out.
pub(super) fn agent() -> anyhow::Result<PathBuf> {
    executable(cargo().args(["build", "--release", "--package", "overlay-user", "--bin", "overlay"]), "bin", "overlay")
}

/// A target of the tests.
pub(super) fn test(target: &str) -> anyhow::Result<PathBuf> {
    executable(cargo().args(["test", "--no-run", "--package", "overlay-tests", "--test", target]), "test", target)
}

/// What we read of cargo's messages, which are JSON, one a line.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// Builds, and returns the executable of the target of this kind and name.
fn executable(build: &mut Command, kind: &str, name: &str) -> anyhow::Result<PathBuf> {
    let messages = stdout(build.arg("--message-format=json-render-diagnostics"))?;
    find(&messages, kind, name).with_context(|| format!("find the {kind} {name} among cargo's messages: none names it"))
}

fn find(messages: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut artifacts = messages.filter_map(|message| Some((message.target?, message.executable?)));
    let wanted = |target: &Target| target.name == name && target.kind.iter().any(|is| is == kind);
    artifacts.find_map(|(target, executable)| wanted(&target).then_some(executable))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_executable_is_found_by_kind_and_name() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"kind":["lib"],"name":"overlay"},"executable":null}
            {"reason":"compiler-artifact","target":{"kind":["bin"],"name":"overlay"},"executable":"/target/overlay"}
            {"reason":"compiler-artifact","target":{"kind":["test"],"name":"overlay"},"executable":"/target/overlay-1"}
            {"reason":"build-finished","success":true}
        "#;
        assert_eq!(find(messages, "test", "overlay").as_deref(), Some(Path::new("/target/overlay-1")));
        assert_eq!(find(messages, "bin", "overlay").as_deref(), Some(Path::new("/target/overlay")));
        assert_eq!(find(messages, "test", "fast"), None);
    }
}
