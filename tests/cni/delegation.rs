//! What the delegate is told, and what becomes of what it says.

use std::fs;

use serde_json::json;

use crate::site::{SUBNET_ENV, Site};

#[test]
fn the_delegate_gets_the_same_environment_and_what_flannels_plugin_would_write() {
    let site = Site::new();
    let mut config = site.config();
    config["runtimeConfig"] = json!({"mac": "02:00:00:00:00:01"});
    site.succeed("ADD", &config);
    let (input, environment) = site.delegated("ADD").unwrap();
    let expected = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "stub", "mtu": 1450, "ipMasq": false,
        "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "prevResult": config["prevResult"],
        "ipam": {
            "type": "host-local", "dataDir": site.path("networks"),
            "ranges": [[{"subnet": "10.1.15.0/24"}]], "routes": [{"dst": "10.1.0.0/16", "gw": "10.1.15.1"}],
        },
    });
    assert_eq!(input, expected);
    for variable in ["CNI_ARGS=A=1", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_COMMAND=ADD", "CNI_NETNS=/proc/"] {
        assert!(environment.contains(variable), "{variable} in {environment}");
    }
    assert_eq!(site.kept(), ["c1"]);
}

#[test]
fn del_and_check_use_what_add_has_kept_though_the_subnet_has_changed_since() {
    let site = Site::new();
    site.succeed("ADD", &site.config());
    let (mut added, _) = site.delegated("ADD").unwrap();
    let mut config = site.config();
    config["delegate"]["type"] = json!("other");
    config["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.15.2/24"}]});
    config["cniVersion"] = json!("1.0.0");
    added["prevResult"] = config["prevResult"].clone();
    added["cniVersion"] = json!("1.0.0");
    assert_eq!(site.succeed("CHECK", &config), "");
    assert_eq!(site.delegated("CHECK").unwrap().0, added);

    fs::write(site.path("subnet.env"), SUBNET_ENV.replace("10.1.15.1", "10.1.16.1")).unwrap();
    assert_eq!(site.fail("CHECK", &config)["code"], 100);
    assert_eq!(site.delegated("CHECK"), None);
    site.succeed("DEL", &config);
    assert_eq!(site.delegated("DEL").unwrap().0, added);
    assert_eq!(site.kept(), [""; 0]);
}

#[test]
fn a_container_that_flannels_plugin_has_connected_is_ours_to_check_and_delete() {
    let site = Site::new();
    fs::create_dir(site.path("data")).unwrap();
    // As flannel's plugin keeps it.
    let kept = json!({
        "cniVersion": "1.1.0", "hairpinMode": true, "ipMasq": false, "isDefaultGateway": true, "mtu": 1450, "name": "net",
        "type": "stub", "ipam": {
            "ranges": [[{"subnet": "10.1.15.0/24"}]], "routes": [{"dst": "10.1.0.0/16"}], "type": "host-local",
        },
    });
    fs::write(site.path("data/c1"), kept.to_string()).unwrap();
    let mut expected = kept;
    expected["prevResult"] = site.config()["prevResult"].clone();
    for command in ["CHECK", "DEL"] {
        site.succeed(command, &site.config());
        assert_eq!(site.delegated(command).unwrap().0, expected, "{command}");
    }
    assert_eq!(site.kept(), [""; 0]);
}

#[test]
fn what_a_failed_add_has_done_is_undone_and_the_error_is_passed_on() {
    let site = Site::new();
    let error = json!({"cniVersion": "1.1.0", "code": 111, "msg": "no", "details": "none left", "own": 1});
    site.stub("ADD", "failure", &error.to_string());
    assert_eq!(site.fail("ADD", &site.config()), error);
    let (added, undone) = (site.delegated("ADD").unwrap().0, site.delegated("DEL").unwrap());
    assert_eq!(added, undone.0);
    assert!(undone.1.contains("CNI_COMMAND=DEL") && undone.1.contains("CNI_CONTAINERID=c1"), "{}", undone.1);
    assert_eq!(site.kept(), [""; 0]);
}

#[test]
fn what_cannot_be_undone_is_left_for_del() {
    let site = Site::new();
    let error = json!({"code": 111, "msg": "no"});
    site.stub("ADD", "failure", &error.to_string());
    site.stub("DEL", "failure", &json!({"code": 112, "msg": "busy"}).to_string());
    assert_eq!(site.fail("ADD", &site.config()), error);
    assert_eq!(site.kept(), ["c1"]);
    assert_eq!(site.fail("DEL", &site.config())["code"], 112);
    assert_eq!(site.kept(), ["c1"]);
    fs::remove_file(site.path("bin/DEL.failure")).unwrap();
    site.succeed("DEL", &site.config());
    assert_eq!(site.kept(), [""; 0]);
}

#[test]
fn a_container_that_is_added_twice_keeps_its_connection() {
    let site = Site::new();
    site.succeed("ADD", &site.config());
    site.stub("ADD", "failure", &json!({"code": 111, "msg": "is there"}).to_string());
    assert_eq!(site.fail("ADD", &site.config())["code"], 111);
    assert_eq!(site.delegated("DEL"), None);
    assert_eq!(site.kept(), ["c1"]);
}

#[test]
fn a_delegate_that_fails_without_a_word_is_named() {
    let site = Site::new();
    for said in ["", "panic: no", "[]"] {
        site.stub("ADD", "failure", said);
        let error = site.fail("ADD", &site.config());
        assert_eq!(error["code"], 101, "{error}");
        assert!(error["details"].as_str().unwrap().contains("bin/stub"), "{error}");
    }
}

#[test]
fn status_and_gc_are_asked_of_the_delegate_as_well() {
    let site = Site::new();
    site.succeed("ADD", &site.config());
    assert_eq!(site.succeed("STATUS", &site.config()), "");
    assert_eq!(site.delegated("STATUS").unwrap().0["ipam"]["ranges"][0][0]["subnet"], "10.1.15.0/24");
    site.stub("STATUS", "failure", &json!({"code": 51, "msg": "no"}).to_string());
    assert_eq!(site.fail("STATUS", &site.config())["code"], 51);

    let mut config = site.config();
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    config["cni.dev/valid-attachments"] = valid.clone();
    assert_eq!(site.succeed("GC", &config), "");
    assert_eq!(site.delegated("GC").unwrap().0["cni.dev/valid-attachments"], valid);
    assert_eq!(site.kept(), ["c1"]);
    // Whatever the delegate says, ours is forgotten.
    site.stub("GC", "failure", &json!({"code": 111, "msg": "no"}).to_string());
    assert_eq!(site.fail("GC", &site.config())["code"], 111);
    assert_eq!(site.kept(), [""; 0]);
}
