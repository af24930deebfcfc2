//! CHECK finds what is wrong, and DEL cleans up whatever has become of the container.

use std::fs;

use overlay_tests::{cluster::Backend, node::Node};
use serde_json::{Value, json};

use crate::{
    networks::{Delegate, WRITERS, Writer, reserved, runtime},
    pods::on_two_nodes,
    runtime::{CniError, Pod},
    state::State,
};

/// Something that happens to a container.
struct Damage {
    name: &'static str,
    happens: fn(&Node, &Pod),
}

const DAMAGES: [Damage; 4] = [
    Damage { name: "its address is gone", happens: |_, pod| drop(pod.netns().ip("address flush dev eth0").unwrap()) },
    Damage { name: "its interface is gone", happens: |_, pod| drop(pod.netns().ip("link delete eth0").unwrap()) },
    Damage { name: "its route is gone", happens: |_, pod| drop(pod.netns().ip("route delete default").unwrap()) },
    Damage {
        name: "its address is not reserved",
        happens: |node, pod| {
            fs::remove_file(reserved(node).join("overlay").join(pod.address().to_string())).unwrap();
        },
    },
];

#[test]
fn check_finds_damage_and_del_cleans_up_all_the_same() {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let node = &cluster.nodes()[0];
        for delegate in [Delegate::Bridge, Delegate::Ptp] {
            let runtime = runtime(node, Writer::Overlay, delegate);
            let before = State::after_first(&runtime, &json!([]));
            for Damage { name, happens } in DAMAGES {
                let pod = runtime.pod("pod", json!([]));
                runtime.check(&pod).unwrap_or_else(|error| panic!("{delegate:?}, before {name}: {error:?}"));
                happens(node, &pod);
                let found = runtime.check(&pod).expect_err(name);
                assert!(found.result["msg"].is_string(), "{delegate:?}, {name}: {found:?}");
                runtime.del(&pod).unwrap_or_else(|error| panic!("{delegate:?}, {name}: {error:?}"));
                before.wait(node, name);
            }
        }
    });
}

#[test]
fn a_container_that_has_ended_is_deleted_without_namespace_and_without_result() {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let node = &cluster.nodes()[0];
        for (writer, delegate) in WRITERS.into_iter().flat_map(|w| [(w, Delegate::Bridge), (w, Delegate::Ptp)]) {
            let runtime = runtime(node, writer, delegate);
            let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
            let before = State::after_first(&runtime, &ports);
            let mut pod = runtime.pod("pod", ports);
            pod.netns = None;
            pod.result = Value::Null;
            runtime.del(&pod).unwrap();
            before.wait(node, &format!("{writer:?}, {delegate:?}"));
        }
    });
}

#[test]
fn a_container_of_an_earlier_subnet_is_told_and_can_be_deleted() {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let node = &cluster.nodes()[0];
        let runtime = runtime(node, Writer::Overlay, Delegate::Bridge);
        let before = State::after_first(&runtime, &json!([]));
        let pod = runtime.pod("pod", json!([]));
        let file = node.subnet_file();
        let text = fs::read_to_string(&file).unwrap();
        let subnet = format!("{}/{}", node.subnet().gateway(), node.subnet().length());
        fs::write(&file, text.replace(&subnet, "10.1.255.1/24")).unwrap();
        let CniError { plugin, code, result } = runtime.check(&pod).unwrap_err();
        assert_eq!((plugin.as_str(), code), ("overlay-cni", 100), "{result}");
        assert!(result["details"].as_str().unwrap().contains("10.1.255.0/24"), "{result}");

        // Nothing can be said against the container while the agent has not written the file.
        fs::remove_file(&file).unwrap();
        runtime.check(&pod).unwrap();
        runtime.del(&pod).unwrap();
        before.wait(node, "without subnet.env");
    });
}

#[test]
fn two_interfaces_of_one_container_come_and_go_apart() {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let node = &cluster.nodes()[0];
        let runtime = runtime(node, Writer::Overlay, Delegate::Bridge);
        let before = State::after_first(&runtime, &json!([]));

        let pod = runtime.pod("pod", json!([]));
        let mut other = Pod { interface: "net1", ..pod.clone() };
        runtime.add(&mut other).unwrap();
        assert_ne!(pod.address(), other.address());
        assert_eq!(State::of(node).saved, ["pod", "pod@net1"].map(str::to_owned).into());
        for _ in 0..2 {
            runtime.del(&other).unwrap();
        }
        runtime.check(&pod).expect("the first is untouched");
        runtime.del(&pod).unwrap();
        before.wait(node, "both deleted");
    });
}
