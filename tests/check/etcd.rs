//! Ways in which etcd is not as it should be.

use std::net::Ipv4Addr;

use etcd_client::{Permission, PermissionType};
use overlay_tests::{
    authority::Authority,
    cluster::{Backend, Cluster},
    etcd::Etcd,
    sandbox::scratch,
};

use crate::ground::{Checked, agree_by, on_a_node, overlay_elsewhere};

const CONFIG: &str = r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#;

#[test]
fn endpoints_are_asked_one_by_one() {
    on_a_node(Backend::Vxlan, |cluster| {
        let dead = "http://192.168.50.254:1";
        let both = format!("{dead},{}", cluster.etcd().endpoint());
        let command = |verb: &str| overlay_elsewhere(cluster, verb, &["--iface", "eth0", "--etcd-endpoints", &both]);
        let checked = agree_by(cluster, &command, None);
        checked.says("datastore", "green", &[]);
        let (dead_one, live_one) = (checked.findings("etcd", "yellow"), checked.findings("etcd", "green"));
        assert!(dead_one.len() == 1 && dead_one[0].contains(dead), "{dead_one:?}");
        assert!(live_one.len() == 1 && live_one[0].contains(&cluster.etcd().endpoint()), "{live_one:?}");

        let command = |verb: &str| overlay_elsewhere(cluster, verb, &["--iface", "eth0", "--etcd-endpoints", dead]);
        agree_by(cluster, &command, Some("datastore")).says("datastore", "red", &[dead]);
    });
}

#[test]
fn an_etcd_that_is_silent_is_waited_for_aloud() {
    on_a_node(Backend::Vxlan, |cluster| {
        cluster.etcd_mut().pause().unwrap();
        let checked = Checked::with_dead_etcd(cluster, &["--iface", "eth0"]);
        checked.says("datastore", "red", &["no answer within 5 s"]).says("underlay", "green", &["eth0"]);
        assert_eq!((checked.code, checked.reds()), (Some(1), vec!["datastore"]));
        assert!(checked.log.contains("waiting for an answer"), "{}", checked.log);
        cluster.etcd_mut().resume().unwrap();
    });
}

#[test]
fn certificates() {
    on_a_node(Backend::Vxlan, |cluster| {
        let cluster: &Cluster = cluster;
        let directory = tempfile::tempdir_in(scratch()).unwrap();
        let authority = |name| Authority::new(directory.path(), name).unwrap();
        let (ours, others) = (authority("ours"), authority("others"));
        let server = ours.issue("server").unwrap();
        let builder = Etcd::builder(cluster.nodes()[0].netns(), Ipv4Addr::LOCALHOST).tls();
        let etcd = builder.args(["--cert-file".into(), server.cert, "--key-file".into(), server.key]).start().unwrap();
        let endpoint = etcd.endpoint();
        let with = |authority: &Authority<'_>| {
            let file = authority.file().to_str().unwrap().to_owned();
            let endpoint = endpoint.clone();
            move |verb: &str| {
                let options = ["--iface", "eth0", "--etcd-endpoints", &endpoint, "--etcd-cafile", &file];
                overlay_elsewhere(cluster, verb, &options)
            }
        };
        agree_by(cluster, &with(&others), Some("datastore")).says(
            "datastore",
            "red",
            &["certificate", "--etcd-cafile"],
        );
        // Nobody has written a config there; but it answers.
        agree_by(cluster, &with(&ours), Some("config")).says("datastore", "green", &[&endpoint]);
    });
}

#[test]
fn users() {
    on_a_node(Backend::Vxlan, |cluster| {
        let cluster: &Cluster = cluster;
        let builder = Etcd::builder(cluster.nodes()[0].netns(), Ipv4Addr::LOCALHOST);
        let etcd = builder.args(["--auth-token", "simple"]).start().unwrap();
        etcd.put("/coreos.com/network/config", CONFIG).unwrap();
        etcd.client(async |mut client| {
            for (user, kind) in [("writer", PermissionType::Readwrite), ("reader", PermissionType::Read)] {
                client.role_add(user).await?;
                let permission = Permission::new(kind, "/coreos.com/network/").with_prefix();
                client.role_grant_permission(user, permission).await?;
                client.user_add(user, "secret", None).await?;
                client.user_grant_role(user, user).await?;
            }
            client.user_add("root", "root", None).await?;
            client.user_grant_role("root", "root").await?;
            client.auth_enable().await?;
            Ok(())
        })
        .unwrap();
        let endpoint = etcd.endpoint();
        let with = |user: &'static str, password: &'static str| {
            let endpoint = endpoint.clone();
            move |verb: &str| {
                let options = ["--iface", "eth0", "--etcd-endpoints", &endpoint, "--etcd-username", user];
                let mut command = overlay_elsewhere(cluster, verb, &options);
                command.args(["--etcd-password", password]);
                command
            }
        };
        agree_by(cluster, &with("writer", "wrong"), Some("datastore")).says(
            "datastore",
            "red",
            &["invalid user ID or password"],
        );
        // Who may only read cannot take a subnet.
        agree_by(cluster, &with("reader", "secret"), Some("datastore")).says(
            "datastore",
            "red",
            &["permission denied"],
        );
        agree_by(cluster, &with("writer", "secret"), None).says("datastore", "green", &[]);
    });
}
