//! An etcd that forgot: it lost everything, or was restored from an older backup. Nodes that live stay connected and put
//! their leases back.

use std::{fs, path::Path};

use overlay_tests::{
    cluster::Cluster,
    process::{self, wait_until},
    sandbox::isolated,
};

use crate::ground::{
    LIMIT, NETWORK, await_route, await_said, key, key_of, pings, route, said, sent, settings, start, value,
};

#[test]
fn an_etcd_that_lost_everything_cuts_nobody_off() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        cluster.etcd().put(&key(100), &value(100, 1)).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!(pings(&cluster), 2);
        let etcd = cluster.etcd_mut();
        etcd.kill().unwrap();
        fs::remove_dir_all(etcd.data()).unwrap();
        etcd.restart().unwrap();
        await_leases(&cluster);
        await_said(&mut cluster.nodes_mut()[0], &["wiped or restored"], 1);
        await_said(&mut cluster.nodes_mut()[0], &["network config deleted"], 1);
        // The node of the third lease had no time to put it back, so it is not gone yet.
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!((pings(&cluster), sent(&cluster)), (2, 4));
        cluster.write_config(NETWORK).unwrap();
        cluster.etcd().put(&key(100), &value(100, 2)).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 2)));
        assert_eq!(said(&mut cluster.nodes_mut()[0], &["route removed"]), 0);
    });
}

#[test]
fn an_older_backup_cuts_nobody_off() {
    isolated(|| {
        let mut cluster = Cluster::new(&settings(2)).unwrap();
        cluster.write_config(NETWORK).unwrap();
        let backup = cluster.directory().join("backup");
        cluster.etcd_mut().kill().unwrap();
        copy(&cluster.etcd().data(), &backup);
        cluster.etcd_mut().restart().unwrap();
        crate::ground::start_agents(&mut cluster);
        cluster.etcd().put(&key(100), &value(100, 1)).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!(pings(&cluster), 2);

        cluster.etcd_mut().kill().unwrap();
        fs::remove_dir_all(cluster.etcd().data()).unwrap();
        copy(&backup, &cluster.etcd().data());
        cluster.etcd_mut().restart().unwrap();
        await_leases(&cluster);
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!((pings(&cluster), sent(&cluster)), (2, 4));
        assert_eq!(said(&mut cluster.nodes_mut()[0], &["route removed"]), 0);
        for words in [["WARN", "network config"], ["INFO", "network config changed"]] {
            assert_eq!(said(&mut cluster.nodes_mut()[0], &words), 0, "it is what it was");
        }
    });
}

/// Waits until etcd has the lease of every node again.
#[track_caller]
fn await_leases(cluster: &Cluster) {
    for node in cluster.nodes() {
        let there = || cluster.etcd().get(&key_of(node)).unwrap().is_some();
        wait_until(&format!("the lease of {}", node.name()), LIMIT, there).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    process::output(process::command("cp").arg("-a").arg(from).arg(to)).unwrap();
}
