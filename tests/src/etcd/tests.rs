use super::*;
use crate::process;

#[test]
fn keys_are_put_listed_and_deleted() {
    sandbox::isolated(|| {
        let etcd = Etcd::on_loopback().unwrap();
        etcd.put("/a/1", "one").unwrap();
        etcd.put("/a/2", "two").unwrap();
        assert_eq!(etcd.get("/a/1").unwrap().as_deref(), Some("one"));
        assert_eq!(etcd.get("/a/3").unwrap(), None);
        assert_eq!(etcd.list("/a/").unwrap(), [("/a/1".into(), "one".into()), ("/a/2".into(), "two".into())]);
        assert_eq!(etcd.delete("/a/").unwrap(), 2);
        assert_eq!(etcd.list("/").unwrap(), []);
    });
}

#[test]
fn data_survives_a_kill_and_a_pause() {
    sandbox::isolated(|| {
        let mut etcd = Etcd::on_loopback().unwrap();
        etcd.put("/key", "value").unwrap();
        etcd.pause().unwrap();
        etcd.resume().unwrap();
        etcd.kill().unwrap();
        assert!(etcd.get("/key").is_err());
        etcd.restart().unwrap();
        assert_eq!(etcd.get("/key").unwrap().as_deref(), Some("value"));
    });
}

#[test]
fn three_members_outlive_one_but_not_two() {
    sandbox::isolated(|| {
        let netns = Netns::new().unwrap();
        let addresses = [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
        for address in &addresses[1..] {
            netns.ip(&format!("address add {address}/8 dev lo")).unwrap();
        }
        let mut members = start_members(&addresses.map(|address| (netns.clone(), address))).unwrap();
        members[0].put("/key", "value").unwrap();
        members[1].kill().unwrap();
        // Without a leader for a moment, should the killed one have been it.
        process::wait_until("a write by two", START, || members[2].put("/key", "two").is_ok()).unwrap();
        members[2].kill().unwrap();
        // Another key: what the last member could not have agreed may still be agreed when there are two again.
        assert!(members[0].put("/other", "one").is_err());
        members[1].relaunch().unwrap();
        members[1].wait_healthy().unwrap();
        assert_eq!(members[1].get("/key").unwrap().as_deref(), Some("two"));
    });
}
