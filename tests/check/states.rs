//! What is yellow, and green again when it is mended.

use std::process::Command;

use overlay_tests::{
    cluster::{Backend, Cluster},
    node::UNDERLAY_DEVICE,
    process,
};

use crate::ground::{Checked, USUAL, agree, on_a_node};

/// Runs a program on the first node.
#[track_caller]
pub(crate) fn run(cluster: &Cluster, line: &str) {
    let mut words = line.split(' ');
    let mut command: Command = cluster.nodes()[0].netns().command(words.next().unwrap());
    process::output(command.args(words)).unwrap();
}

#[test]
fn rules_of_iptables_in_input() {
    on_a_node(Backend::Vxlan, |cluster| {
        for program in ["iptables-nft", "iptables-legacy"] {
            // What etcd answers.
            run(cluster, &format!("{program} -A INPUT -p tcp -j ACCEPT"));
            run(cluster, &format!("{program} -P INPUT DROP"));
            let checked = Checked::of(cluster, USUAL);
            checked.says("firewall-input", "yellow", &["UDP port 8472", "the policy of iptables' INPUT"]);
            run(cluster, &format!("{program} -A INPUT -p udp --dport 8472 -s 192.168.50.0/24 -j ACCEPT"));
            let checked = Checked::of(cluster, USUAL);
            checked.says("firewall-input", "yellow", &["perhaps"]);
            run(cluster, &format!("{program} -A INPUT -p udp --dport 8472 -i eth0 -j ACCEPT"));
            Checked::of(cluster, USUAL).says("firewall-input", "green", &[]);
            run(cluster, &format!("{program} -I INPUT -p udp -j REJECT"));
            Checked::of(cluster, USUAL).says("firewall-input", "yellow", &["a rule of iptables' INPUT"]);
            run(cluster, &format!("{program} -F INPUT"));
            run(cluster, &format!("{program} -P INPUT ACCEPT"));
            Checked::of(cluster, USUAL).says("firewall-input", "green", &[]);
        }
    });
}

#[test]
fn rules_of_nftables_in_input() {
    on_a_node(Backend::Udp, |cluster| {
        run(cluster, "nft add table inet guard");
        run(cluster, "nft add chain inet guard incoming { type filter hook input priority 0 ; policy drop ; }");
        run(cluster, "nft add rule inet guard incoming ct state established,related accept");
        run(cluster, "nft add rule inet guard incoming iifname lo accept");
        run(cluster, "nft add rule inet guard incoming tcp dport { 22, 443 } accept");
        let by = "the policy of nftables' inet guard incoming";
        Checked::of(cluster, USUAL).says("firewall-input", "yellow", &["is dropped by", by]);
        run(cluster, "nft add rule inet guard incoming meta mark 7 accept");
        Checked::of(cluster, USUAL).says("firewall-input", "yellow", &["is perhaps dropped by", by]);
        run(cluster, "nft add chain inet guard tunnels");
        run(cluster, "nft add rule inet guard incoming meta l4proto udp jump tunnels");
        run(cluster, "nft add rule inet guard tunnels udp dport { 53, 8000-9000 } counter accept");
        Checked::of(cluster, USUAL).says("firewall-input", "green", &[]);
        run(cluster, "nft insert rule inet guard tunnels ip daddr 192.168.50.0/24 drop");
        Checked::of(cluster, USUAL).says("firewall-input", "yellow", &["a rule of nftables' inet guard tunnels"]);
    });
}

#[test]
fn rules_in_forward() {
    on_a_node(Backend::Vxlan, |cluster| {
        for program in ["iptables-nft", "iptables-legacy"] {
            run(cluster, &format!("{program} -P FORWARD DROP"));
            agree(cluster, USUAL, None).says("firewall-forward", "green", &["the agent puts a rule there"]);
            let without = ["--iface", UNDERLAY_DEVICE, "--iptables-forward-rules=false"];
            let checked = Checked::of(cluster, &without);
            checked.says(
                "firewall-forward",
                "yellow",
                &["the policy of iptables' FORWARD", "--iptables-forward-rules"],
            );
            run(cluster, &format!("{program} -P FORWARD ACCEPT"));
            Checked::of(cluster, &without).says("firewall-forward", "green", &[]);
        }
        run(cluster, "nft add table ip guard");
        run(cluster, "nft add chain ip guard passing { type filter hook forward priority 0 ; policy drop ; }");
        Checked::of(cluster, USUAL).says("firewall-forward", "yellow", &["nftables' ip guard passing", "10.1.0.0/16"]);
        run(cluster, "nft add rule ip guard passing ip saddr 10.0.0.0/8 accept");
        Checked::of(cluster, USUAL).says("firewall-forward", "green", &[]);
    });
}

#[test]
fn the_underlay_interface() {
    on_a_node(Backend::Vxlan, |cluster| {
        let node = cluster.nodes()[0].netns();
        node.sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
        Checked::of(cluster, USUAL).says("rp-filter", "yellow", &["strict on eth0", "net.ipv4.conf.eth0.rp_filter"]);
        node.sysctl("net.ipv4.conf.eth0.rp_filter", "2").unwrap();
        Checked::of(cluster, USUAL).says("rp-filter", "green", &[]);

        node.sysctl("net.ipv4.ip_forward", "0").unwrap();
        Checked::of(cluster, USUAL).says("ip-forward", "green", &["the agent switches it on"]);

        cluster.write_config(r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","MTU":9000}}"#).unwrap();
        agree(cluster, USUAL, Some("mtu")).says("mtu", "red", &["Backend.MTU 9000", "eth0"]);
        cluster.write_config(r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#).unwrap();
        Checked::of(cluster, USUAL).says("mtu", "green", &["Backend.MTU uses 1400"]);

        // A second interface, as etcd is behind the first.
        let peer = overlay_tests::netns::Netns::new().unwrap();
        node.veth("eth1", &peer, "eth1", 1500).unwrap();
        node.ip("address add 192.0.2.1/24 dev eth1").unwrap();
        Checked::of(cluster, &["--iface", "eth1"]).says("underlay", "green", &["eth1"]);
        peer.ip("link set dev eth1 down").unwrap();
        Checked::of(cluster, &["--iface", "eth1"]).says("underlay", "yellow", &["without carrier"]);
    });
}

#[test]
fn a_lease_that_may_be_anothers() {
    on_a_node(Backend::Vxlan, |cluster| {
        let value = r#"{"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}}"#;
        cluster.etcd().put("/coreos.com/network/subnets/10.1.7.0-24", value).unwrap();
        let checked = Checked::of(cluster, USUAL);
        checked.says("subnet", "yellow", &["10.1.7.0/24", "192.168.50.1", "the agent asks"]);
        assert_eq!(checked.report["choice"]["subnet"], "10.1.7.0/24");
        // A free subnet that was had before is taken again.
        cluster.etcd().delete("/coreos.com/network/subnets/").unwrap();
        let file = cluster.nodes()[0].subnet_file();
        std::fs::write(&file, "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.9.1/24\n").unwrap();
        Checked::of(cluster, USUAL).says("subnet", "green", &["10.1.9.0/24", "subnet.env"]);
    });
}
