//! A network config that changes while agents run.

use overlay_tests::{
    node::Node,
    process::{output, wait_until},
    sandbox::isolated,
};

use crate::ground::{LIMIT, NETWORK, await_said, pings, said, settings, start};

fn vxlan(more: &str) -> String {
    NETWORK.replace(r#""vxlan""#, &format!(r#""vxlan",{more}"#))
}

fn mtu_of_the_device(node: &Node) -> String {
    node.netns().ip("-json link show dev overlay.1").unwrap()
}

#[test]
fn what_is_safe_is_applied_at_once() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        cluster.write_config(&vxlan(r#""MTU":1400"#)).unwrap();
        for node in cluster.nodes_mut() {
            await_said(node, &["network config changed and applied", "Backend.MTU", "1350"], 1);
            wait_until("the MTU", LIMIT, || mtu_of_the_device(node).contains(r#""mtu":1350"#)).unwrap();
            let file = std::fs::read_to_string(node.subnet_file()).unwrap();
            assert!(file.contains("FLANNEL_MTU=1350\n"), "{file}");
            let mut dump = node.overlay();
            dump.args(["map", "dump", "LOCAL_NODE", "-o", "json", "--run-dir"]).arg(node.run_dir());
            let programs = output(&mut dump).unwrap();
            assert!(programs.contains(r#""mtu":1350"#), "{programs}");
        }
        assert_eq!(pings(&cluster), 2);
        cluster.write_config(NETWORK).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        wait_until("the MTU", LIMIT, || mtu_of_the_device(node).contains(r#""mtu":1450"#)).unwrap();
        // A lease that is held stays where it is, and new ones may be elsewhere.
        let wider = NETWORK.replace("10.1.9.0", "10.1.99.0");
        cluster.write_config(&wider).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["network config changed and applied", "SubnetMax"], 1);
    });
}

#[test]
fn what_is_not_safe_is_named_once_and_waits_for_a_restart() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        let config = vxlan(r#""VNI":7,"MTU":1400"#);
        cluster.write_config(&config).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["WARN", "Backend.VNI", "restart"], 1);
        for (config, words) in [("{\"Network\":", "not JSON"), (r#"{"Network":"10.1.0.0/99"}"#, "10.1.0.0/99")] {
            cluster.write_config(config).unwrap();
            await_said(&mut cluster.nodes_mut()[0], &["WARN", "refused", words], 1);
        }
        // Back to what is in force, in other words: nothing to say.
        cluster.write_config(&vxlan(r#""VNI":1,"Port":8472"#)).unwrap();
        cluster.etcd().delete(overlay_tests::cluster::CONFIG_KEY).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["WARN", "network config deleted"], 1);
        let node = &mut cluster.nodes_mut()[0];
        assert_eq!(said(node, &["WARN", "network config"]), 4, "{}", node.agent().log());
        assert!(mtu_of_the_device(node).contains(r#""mtu":1450"#));
        assert_eq!(pings(&cluster), 2);
    });
}
