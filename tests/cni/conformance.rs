//! The specification's error cases: `overlay cni` answers each command as it should, and where the case is not of our
//! plugin alone, with the code of the CNI project's own plugins.

use std::{fs::File, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{
    runtime::{PLUGINS, run},
    site::{Site, error_result},
};

const ATTACHMENT: &[&str] = &["ADD", "DEL", "CHECK"];
const NEW: &[&str] = &["STATUS", "GC"];
const ALL: &[&str] = &["ADD", "DEL", "CHECK", "STATUS", "GC"];

/// Whether Debian's plugins know the case, and give it the same code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Everywhere,
    Here,
}
use Known::{Everywhere, Here};

/// A variable of the environment that is wrong: commands, variable, its value, and which code.
const ENVIRONMENT: &[(&[&str], &str, Option<&str>, Known)] = &[
    (&["ADD"], "CNI_COMMAND", None, Here),
    (&["ADD"], "CNI_COMMAND", Some(""), Here),
    (&["ADD"], "CNI_COMMAND", Some("JUMP"), Everywhere),
    (&["ADD"], "CNI_COMMAND", Some("add"), Everywhere),
    (ATTACHMENT, "CNI_CONTAINERID", None, Everywhere),
    (ATTACHMENT, "CNI_CONTAINERID", Some(""), Everywhere),
    (ATTACHMENT, "CNI_CONTAINERID", Some("../c1"), Everywhere),
    (ATTACHMENT, "CNI_CONTAINERID", Some("-c1"), Everywhere),
    (ATTACHMENT, "CNI_IFNAME", None, Everywhere),
    (ATTACHMENT, "CNI_IFNAME", Some("eth/0"), Everywhere),
    (ATTACHMENT, "CNI_IFNAME", Some("sixteen-letters-"), Everywhere),
    (ATTACHMENT, "CNI_IFNAME", Some(".."), Everywhere),
    (&["ADD", "CHECK"], "CNI_NETNS", None, Everywhere),
    (&["ADD"], "CNI_PATH", None, Everywhere),
    (NEW, "CNI_PATH", None, Here),
];

/// Something else than a configuration on standard input.
const INPUT: &[(&[&str], &str, u64, Known)] = &[
    (ATTACHMENT, "", 6, Everywhere),
    (ATTACHMENT, "{", 6, Everywhere),
    (ATTACHMENT, "[1]", 6, Everywhere),
    (NEW, "{", 6, Here),
    (&["VERSION"], "{", 6, Here),
    (&["VERSION"], r#"{"cniVersion": "new"}"#, 6, Here),
];

/// Commands, a key of the configuration, another value for it as JSON, which code, and what the error must name.
type WrongValue = (&'static [&'static str], &'static str, &'static str, u64, &'static str, Known);

const CONFIGURATION: &[WrongValue] = &[
    (ALL, "cniVersion", r#""new""#, 6, "new", Here),
    (ATTACHMENT, "cniVersion", r#""9.9.9""#, 1, "9.9.9", Everywhere),
    (NEW, "cniVersion", r#""9.9.9""#, 1, "9.9.9", Here),
    (ATTACHMENT, "cniVersion", r#""0.2.0""#, 1, "", Here),
    // An absent version is 0.1.0.
    (ATTACHMENT, "cniVersion", "null", 1, "", Here),
    (&["CHECK"], "cniVersion", r#""0.3.1""#, 1, "CHECK", Everywhere),
    (NEW, "cniVersion", r#""1.0.0""#, 1, "", Here),
    (ATTACHMENT, "name", "null", 7, "name", Everywhere),
    (ATTACHMENT, "name", r#""../net""#, 7, "../net", Everywhere),
    (ALL, "delegate", r#""bridge""#, 6, "", Here),
    (ALL, "subnetFile", "7", 6, "", Here),
    (&["ADD"], "delegate", r#"{"name": "other"}"#, 2, r#"delegate.name is "other""#, Here),
    (&["ADD"], "delegate", r#"{"ipam": {"type": "x"}}"#, 2, r#"delegate.ipam is {"type":"x"}"#, Here),
    (&["ADD"], "delegate", r#"{"type": 7}"#, 7, "delegate.type", Here),
    (&["ADD"], "delegate", r#"{"type": "../bin/stub"}"#, 7, "../bin/stub", Here),
    (&["ADD"], "delegate", r#"{"type": "missing-plugin"}"#, 7, "missing-plugin", Here),
    (&["ADD"], "ipam", r#"{"routes": 7}"#, 7, "ipam.routes", Here),
    (&["ADD", "GC"], "subnetFile", r#""/nowhere/subnet.env""#, 11, "/nowhere", Here),
    (&["STATUS"], "subnetFile", r#""/nowhere/subnet.env""#, 50, "/nowhere", Here),
    (&["ADD"], "subnetFile", r#""/""#, 5, "subnet file /", Here),
    (&["ADD"], "subnetFile", r#""/dev/null""#, 6, "FLANNEL_NETWORK", Here),
    (ATTACHMENT, "dataDir", r#""/dev/null""#, 5, "/dev/null", Here),
    (&["CHECK"], "prevResult", "null", 7, "prevResult", Here),
    // Good as it is, but for that nothing was added.
    (&["CHECK"], "args", "{}", 3, "c1", Here),
    (&["GC"], "cni.dev/valid-attachments", "null", 7, "cni.dev/valid-attachments", Here),
];

/// Calls our plugin, and Debian's if it knows the case, and compares the errors.
fn assert_fails(
    site: &Site,
    command: &str,
    variable: Option<(&str, Option<&str>)>,
    input: &str,
    expected: (u64, &str, Known),
) {
    let (code, names, known) = expected;
    let what = format!("{command} with {variable:?} and {input}");
    let call = |program: &Path| {
        let mut plugin = site.plugin(program, command);
        match variable {
            Some((name, Some(value))) => plugin.env(name, value),
            Some((name, None)) => plugin.env_remove(name),
            None => &mut plugin,
        };
        run(&mut plugin, input)
    };
    let output = call(&site.path("bin/overlay-cni"));
    let result = error_result(&output);
    assert_eq!(result["code"], code, "{what}: {result}");
    assert!(result["cniVersion"].is_string() && result["msg"].is_string(), "{what}: {result}");
    assert!(result["details"].as_str().unwrap().contains(names), "{what}: {result} does not name {names}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(log.lines().count(), 1, "{what}: {log}");
    assert_eq!(site.delegated(command), None, "{what}: the delegate was called");
    if known == Everywhere {
        let theirs = error_result(&call(&Path::new(PLUGINS).join("bridge")));
        assert_eq!(theirs["code"], code, "{what}: {theirs}");
    }
}

#[test]
fn each_wrong_variable_is_named() {
    let site = Site::new();
    for &(commands, variable, value, known) in ENVIRONMENT {
        for command in commands {
            let input = site.config().to_string();
            assert_fails(&site, command, Some((variable, value)), &input, (4, variable, known));
        }
    }
}

#[test]
fn what_is_no_configuration_is_told_from_what_cannot_be_read() {
    let site = Site::new();
    for &(commands, input, code, known) in INPUT {
        for command in commands {
            assert_fails(&site, command, None, input, (code, "", known));
        }
    }
    for command in ALL {
        let mut plugin = site.plugin(&site.path("bin/overlay-cni"), command);
        let output = plugin.stdin(Stdio::from(File::open("/").unwrap())).output().unwrap();
        assert_eq!(error_result(&output)["code"], 5, "{command}");
    }
}

#[test]
fn each_wrong_value_is_refused_with_its_code() {
    let site = Site::new();
    for &(commands, key, value, code, names, known) in CONFIGURATION {
        for command in commands {
            let mut config = site.config();
            config[key] = serde_json::from_str(value).unwrap();
            assert_fails(&site, command, None, &config.to_string(), (code, names, known));
        }
    }
    assert_eq!(site.kept(), [""; 0]);
    let (rows, requests) = (CONFIGURATION.len(), CONFIGURATION.iter().map(|row| row.0.len()).sum::<usize>());
    println!("{rows} wrong values, {requests} requests refused");
}

#[test]
fn a_runtime_learns_the_versions_in_any_version() {
    let site = Site::new();
    for asked in ["0.2.0", "1.0.0", "1.1.0", "2.0.0"] {
        let said: Value = serde_json::from_str(&site.succeed("VERSION", &json!({"cniVersion": asked}))).unwrap();
        let supported = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(said, json!({"cniVersion": asked, "supportedVersions": supported}));
    }
}

#[test]
fn every_version_of_ours_reaches_the_delegate_as_it_is() {
    let site = Site::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut config = site.config();
        config["cniVersion"] = json!(version);
        site.stub("ADD", "answer", &format!("{{\"cniVersion\": \"{version}\", \"own\": true}}\n"));
        assert_eq!(site.succeed("ADD", &config), format!("{{\"cniVersion\": \"{version}\", \"own\": true}}\n"));
        assert_eq!(site.delegated("ADD").unwrap().0["cniVersion"], version);
        assert_eq!(site.succeed("DEL", &config), "");
        assert_eq!(site.delegated("DEL").unwrap().0["cniVersion"], version);
    }
}

#[test]
fn del_of_what_was_never_added_succeeds_without_a_delegate() {
    let site = Site::new();
    assert_eq!(site.succeed("DEL", &site.config()), "");
    assert_eq!(site.delegated("DEL"), None);
}
