//! A place to call a plugin by hand: a subnet file, a delegate that only notes how it is called, and nothing else.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use overlay_tests::netns::Netns;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::runtime::{ours, run};

/// Notes its environment and input, and answers with the file that is there for the command, as a failure if there is
/// one for that.
const STUB: &str = r#"#!/bin/sh
directory=$(dirname "$0")
cat > "$directory/$CNI_COMMAND.input"
env | grep ^CNI_ | sort > "$directory/$CNI_COMMAND.environment"
if [ -f "$directory/$CNI_COMMAND.failure" ]; then
    cat "$directory/$CNI_COMMAND.failure"
    exit 1
fi
[ ! -f "$directory/$CNI_COMMAND.answer" ] || cat "$directory/$CNI_COMMAND.answer"
"#;

pub(crate) const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

pub(crate) struct Site {
    directory: TempDir,
    netns: Netns,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), netns: Netns::new().unwrap() };
        fs::write(site.path("subnet.env"), SUBNET_ENV).unwrap();
        ours(&site.path("bin"));
        fs::write(site.path("bin/stub"), STUB).unwrap();
        fs::set_permissions(site.path("bin/stub"), fs::Permissions::from_mode(0o755)).unwrap();
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration that is good for every command.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "net", "type": "overlay-cni", "delegate": {"type": "stub"},
            "subnetFile": self.path("subnet.env"), "dataDir": self.path("data"),
            "ipam": {"type": "host-local", "dataDir": self.path("networks")},
            "prevResult": {"cniVersion": "1.1.0", "ips": []}, "cni.dev/valid-attachments": [],
        })
    }

    /// The plugin at `program`, with an environment that is good for every command.
    pub(crate) fn plugin(&self, program: &Path, command: &str) -> Command {
        let mut plugin = self.netns.command(program);
        plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0");
        plugin.env("CNI_NETNS", self.netns.path()).env("CNI_PATH", self.path("bin")).env("CNI_ARGS", "A=1");
        plugin
    }

    /// Calls our plugin.
    pub(crate) fn call(&self, command: &str, config: &Value) -> Output {
        run(&mut self.plugin(&self.path("bin/overlay-cni"), command), &config.to_string())
    }

    /// Calls our plugin, which must succeed, and returns what it says.
    #[track_caller]
    pub(crate) fn succeed(&self, command: &str, config: &Value) -> String {
        let output = self.call(command, config);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Calls our plugin, which must fail, and returns its error result.
    #[track_caller]
    pub(crate) fn fail(&self, command: &str, config: &Value) -> Value {
        error_result(&self.call(command, config))
    }

    /// Has the delegate answer `command`, with a failure or not.
    pub(crate) fn stub(&self, command: &str, kind: &str, answer: &str) {
        fs::write(self.path(&format!("bin/{command}.{kind}")), answer).unwrap();
    }

    /// What the delegate got with `command`, since this was last asked; none when it was not called.
    pub(crate) fn delegated(&self, command: &str) -> Option<(Value, String)> {
        let take = |kind| {
            let path = self.path(&format!("bin/{command}.{kind}"));
            let text = fs::read_to_string(&path).ok()?;
            fs::remove_file(&path).unwrap();
            Some(text)
        };
        let input = serde_json::from_str(&take("input")?).unwrap();
        Some((input, take("environment")?))
    }

    /// The names of the configurations that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("data")).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// The error result of a plugin that has failed.
#[track_caller]
pub(crate) fn error_result(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
