//! Keys and values that nobody should have written. Each is reported once and skipped; everything else works.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::PathBuf};

use etcd_client::Client;
use overlay_tests::{
    cluster::{Cluster, Datastore, Settings},
    sandbox::isolated,
};

use crate::ground::{await_route, await_said, key, key_of, route, said, settings, start, value};

/// One thing written by hand.
struct Case {
    key: &'static [u8],
    value: Vec<u8>,
    /// What the one line about it says.
    words: &'static [&'static str],
}

fn case(key: &'static str, value: impl Into<Vec<u8>>, words: &'static [&'static str]) -> Case {
    Case { key: key.as_bytes(), value: value.into(), words }
}

fn cases() -> Vec<Case> {
    let good = value(77, 1);
    vec![
        case("10.1.101.0-24", vec![b'x'; 10 << 20], &["10.1.101.0-24", "bytes, more than"]),
        case("10.1.102.0-24", b"\xff\xfe{}", &["10.1.102.0-24", "not JSON"]),
        case("10.1.103.0-24", r#"{"PublicIP":7}"#, &["10.1.103.0-24", "PublicIP 7"]),
        case("10.1.104.0-24", "[]", &["10.1.104.0-24", "not a JSON object"]),
        case("10.1.105.0-24", good.replace(r#"{"VNI":1"#, r#"{"VNI":"one""#), &["10.1.105.0-24", "VNI"]),
        case("10.1.106.0-24", value(0, 1).replace("192.168.50.0", "0.0.0.0"), &["10.1.106.0-24", "0.0.0.0"]),
        case("10.1.107.0-24", value(1, 1), &["10.1.107.0-24", "our PublicIP"]),
        case("10.1.108.0-24", good.replace("vxlan", "ipip"), &["10.1.108.0-24", "ipip"]),
        case("10.1.109.0-24", r#"{"PublicIP":"192.168.50.77"}"#, &["10.1.109.0-24", "udp"]),
        case("10.1.110.0-25", good.clone(), &["10.1.110.0-25", "length"]),
        case("10.1.96.0-20", good.clone(), &["10.1.96.0-20", "length"]),
        case("10.1.111.1-24", good.clone(), &["10.1.111.1-24", "bits set behind"]),
        case("10.2.1.0-24", good.clone(), &["10.2.1.0-24", "outside the network"]),
        case("10.1.112.0-33", good.clone(), &["10.1.112.0-33", "not of the form"]),
        case("hello", good.clone(), &["hello", "not of the form"]),
        case("10.1.100.0-24&fd00::-64", good.clone(), &["10.1.100.0-24&fd00::-64", "has the same subnet"]),
        Case { key: b"10.1.\xff.0-24", value: good.into(), words: &["10.1.\u{fffd}.0-24", "not of the form"] },
    ]
}

/// Writes a lease as an operator's slip would.
fn write(cluster: &Cluster, datastore: Datastore, key: &[u8], value: &[u8]) {
    match datastore {
        Datastore::Etcd => {
            let key = [b"/coreos.com/network/subnets/", key].concat();
            let put = async |mut client: Client| Ok(client.put(key, value, None).await.map(drop)?);
            cluster.etcd().client(put).unwrap();
        }
        Datastore::File => {
            let subnets: PathBuf = cluster.directory().join("datastore/subnets");
            // As editors do it; what is written in place is looked at when it is closed, too.
            let new = subnets.join(".new");
            fs::write(&new, value).unwrap();
            fs::rename(new, subnets.join(OsStr::from_bytes(key))).unwrap();
        }
    }
}

fn bad_input_is_skipped(datastore: Datastore) {
    isolated(|| {
        let etcd_arguments = vec!["--max-request-bytes".to_owned(), (20 << 20).to_string()];
        let mut cluster = start(&Settings { datastore, etcd_arguments, ..settings(1) });
        let good = |cluster: &Cluster, third: u8| {
            write(cluster, datastore, format!("10.1.{third}.0-24").as_bytes(), value(third, 1).as_bytes());
            await_route(&cluster.nodes()[0], third, Some(route(third, 1)));
        };
        good(&cluster, 100);
        // Twice, as somebody who tries again would.
        for round in [200, 201] {
            for case in cases() {
                write(&cluster, datastore, case.key, &case.value);
            }
            good(&cluster, round);
        }
        for case in cases() {
            await_said(&mut cluster.nodes_mut()[0], &[&["WARN"], case.words].concat(), 1);
        }
        // A new agent meets all of it at once.
        let node = &mut cluster.nodes_mut()[0];
        node.agent().kill().unwrap();
        fs::remove_file(node.run_dir().join("agent.log")).unwrap();
        node.start_agent().unwrap();
        node.wait_ready().unwrap();
        for case in cases() {
            await_said(&mut cluster.nodes_mut()[0], &[&["WARN"], case.words].concat(), 1);
        }
        let routes = cluster.nodes()[0].counters().routes().unwrap();
        assert_eq!(routes.into_keys().map(|subnet| subnet.octets()[2]).collect::<Vec<_>>(), [100, 200, 201]);
        let node = &mut cluster.nodes_mut()[0];
        let warnings = said(node, &["WARN"]);
        assert_eq!(warnings, cases().len(), "{}", node.agent().log());
    });
}

#[test]
fn bad_input_in_etcd_is_reported_once_and_skipped() {
    bad_input_is_skipped(Datastore::Etcd);
}

#[test]
fn bad_input_in_a_directory_is_reported_once_and_skipped() {
    bad_input_is_skipped(Datastore::File);
}

#[test]
fn a_good_value_at_a_bad_one_s_key_is_taken_and_our_own_is_restored() {
    isolated(|| {
        let mut cluster = start(&settings(1));
        cluster.etcd().put(&key(100), "oops").unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["10.1.100.0-24", "skipped"], 1);
        cluster.etcd().put(&key(100), &value(100, 1)).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        // A slip of the hand does not cut off who is there.
        cluster.etcd().put(&key(100), "oops").unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["10.1.100.0-24", "skipped"], 2);
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));

        let ours = key_of(&cluster.nodes()[0]);
        let before = cluster.etcd().get(&ours).unwrap();
        cluster.etcd().put(&ours, "oops").unwrap();
        let restored = || cluster.etcd().get(&ours).unwrap() == before;
        overlay_tests::process::wait_until("our own value", crate::ground::LIMIT, restored).unwrap();
    });
}
