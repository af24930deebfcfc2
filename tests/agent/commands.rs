//! `overlay config` and `overlay lease`: what they print, what they refuse, and with which exit code.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use overlay_tests::{
    cluster::{Cluster, Datastore, Settings},
    process::wait_until,
    sandbox::isolated,
};
use serde_json::Value;

use crate::ground::{LIMIT, NETWORK, settings};

/// Runs `test` on a cluster of two nodes for each kind of datastore: no config yet, no agents.
fn for_each_datastore(test: impl Fn(&mut Cluster) + Sync) {
    for datastore in [Datastore::Etcd, Datastore::File] {
        println!("datastore {datastore:?}");
        isolated(|| test(&mut Cluster::new(&Settings { datastore, ..settings(2) }).unwrap()));
    }
}

/// `overlay WORDS` on a node.
fn overlay(cluster: &Cluster, node: usize, words: &[&str]) -> Command {
    let node = &cluster.nodes()[node];
    let mut command = node.overlay();
    command.args(words).args(cluster.datastore_arguments()).arg("--run-dir").arg(node.run_dir());
    command
}

fn run(cluster: &Cluster, words: &[&str]) -> Output {
    overlay(cluster, 0, words).output().unwrap()
}

/// What the command prints when it works.
#[track_caller]
fn works(cluster: &Cluster, words: &[&str]) -> String {
    let output = run(cluster, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Fails unless the command fails with exit code 1 and one line that has all of `says`.
#[track_caller]
fn refused(cluster: &Cluster, words: &[&str], says: &[&str]) {
    let output = run(cluster, words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{words:?}: {said}");
    assert!(output.stdout.is_empty());
    for word in says {
        assert!(said.contains(word), "{words:?}: no {word:?} in {said}");
    }
}

#[test]
fn a_config_is_set_from_anywhere_and_checked_first() {
    for_each_datastore(|cluster| {
        refused(cluster, &["config", "get"], &["network config", "overlay config set"]);
        refused(cluster, &["config", "set", r#"{"Network":"10.1.0.0/29"}"#], &["Network 10.1.0.0/29"]);
        refused(cluster, &["config", "set", "/no/such/file"], &["/no/such/file"]);
        refused(cluster, &["config", "get"], &["network config"]);

        works(cluster, &["config", "set", NETWORK]);
        assert_eq!(works(cluster, &["config", "get"]), format!("{NETWORK}\n"));
        let file = cluster.directory().join("config.json");
        fs::write(&file, "{\n  \"Network\": \"10.9.0.0/16\"\n}\n").unwrap();
        works(cluster, &["config", "set", file.to_str().unwrap()]);
        assert_eq!(works(cluster, &["config", "get"]), fs::read_to_string(&file).unwrap());

        let mut command = overlay(cluster, 0, &["config", "set"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(br#"{"Network":"10.8.0.0/16"}"#).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("Network applied after a restart"), "{said}");
        assert_eq!(works(cluster, &["config", "get"]), "{\"Network\":\"10.8.0.0/16\"}\n");
        let large = "x".repeat(10 << 20);
        fs::write(&file, large).unwrap();
        refused(cluster, &["config", "set", file.to_str().unwrap()], &["more than"]);
    });
}

#[test]
fn reservations_are_made_taken_listed_and_released() {
    for_each_datastore(|cluster| {
        works(cluster, &["config", "set", NETWORK]);
        works(cluster, &["lease", "reserve", "10.1.7.0/24", "192.168.50.1"]);
        refused(cluster, &["lease", "reserve", "10.1.7.0/24", "192.168.50.2"], &["10.1.7.0-24", "192.168.50.1"]);
        refused(cluster, &["lease", "reserve", "10.1.8.0/24", "192.168.50.1"], &["has 10.1.7.0-24"]);
        refused(cluster, &["lease", "reserve", "10.1.8.0/24", "0.0.0.0"], &["PublicIP 0.0.0.0"]);
        refused(cluster, &["lease", "reserve", "10.1.200.0/24", "192.168.50.2"], &["10.1.9.0"]);
        refused(cluster, &["lease", "release", "10.1.8.0-24"], &["10.1.8.0-24", "overlay lease list"]);

        crate::ground::start_agents(cluster);
        assert_eq!(cluster.nodes()[0].subnet().subnet().octets(), [10, 1, 7, 0]);
        let rows = json(&run(cluster, &["lease", "list", "-o", "json"]));
        let [reserved, other] =
            rows.as_array().unwrap().iter().map(|row| (row["public_ip"] == "192.168.50.1", row)).fold(
                [&Value::Null, &Value::Null],
                |[one, two], (first, row)| if first { [row, two] } else { [one, row] },
            );
        assert_eq!((&reserved["subnet"], &reserved["expires_in"]), (&"10.1.7.0-24".into(), &Value::Null));
        assert_eq!(
            (&reserved["ours"], &reserved["reserved"], &reserved["backend"]),
            (&true.into(), &true.into(), &"vxlan".into())
        );
        assert_eq!((&other["ours"], &other["reserved"]), (&false.into(), &false.into()));
        assert!(other["expires_in"].as_u64().is_some_and(|left| (86_000..=86_400).contains(&left)), "{other}");
        assert!(other["vtep_mac"].as_str().is_some_and(|mac| mac.len() == 17), "{other}");
        let rows = json(&overlay(cluster, 1, &["lease", "list", "-o", "json"]).output().unwrap());
        let ours: Vec<_> = rows.as_array().unwrap().iter().filter(|row| row["ours"] == true).collect();
        assert!(ours.len() == 1 && ours[0]["public_ip"] == "192.168.50.2", "{rows}");
        let table = works(cluster, &["lease", "list"]);
        assert!(table.lines().count() == 3 && table.contains("never") && table.contains("23h 59m"), "{table}");

        // Who lives keeps it, for as long as it lives.
        works(cluster, &["lease", "release", "10.1.7.0/24"]);
        let taken = || {
            let rows = json(&run(cluster, &["lease", "list", "-o", "json"]));
            rows.as_array().unwrap().iter().any(|row| row["subnet"] == "10.1.7.0-24" && row["expires_in"].is_u64())
        };
        wait_until("the subnet to be taken again", LIMIT, taken).unwrap();
    });
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_wrong_command_line_and_a_silent_datastore_are_told_apart() {
    isolated(|| {
        let mut cluster = Cluster::new(&settings(1)).unwrap();
        for words in [
            &["lease", "reserve", "10.1.7.1/24", "192.168.50.1"][..],
            &["lease", "reserve", "10.1.7.0/24", "nobody"],
            &["lease", "release"],
            &["lease", "list", "-o", "xml"],
            &["config", "put"],
        ] {
            assert_eq!(run(&cluster, words).status.code(), Some(2), "{words:?}");
        }
        cluster.etcd_mut().kill().unwrap();
        let endpoint = cluster.etcd().endpoint();
        for words in [&["lease", "list"][..], &["config", "get"], &["lease", "release", "10.1.7.0/24"]] {
            refused(&cluster, words, &[&endpoint]);
        }
    });
}
