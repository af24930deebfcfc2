//! An etcd that is silent, restarted, compacted, or wiped; and how much is asked of it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::{PutOptions, Txn, TxnOp};
use overlay_tests::{etcd::Etcd, netns::Netns, sandbox};
use overlay_user::{
    datastore::{Change, DatastoreConfig, EtcdOptions, Lifetime, Replaced, Scope},
    holder::{Claim, HoldEvent, acquire},
    lease::LeaseEvent,
    watch::WatchEvent,
};
use tokio::sync::mpsc;

use crate::{
    ground::{Ground, LIMIT, block_on, change, keys, lease, network, next, node, options, until},
    watching::{follow, put, reset},
};

const SUBNETS: &str = "/coreos.com/network/subnets/";

/// Runs `test` inside the namespace of a new etcd.
fn with_etcd(test: impl AsyncFnOnce(&mut Etcd, Ground) + Send) {
    sandbox::isolated(|| {
        let mut etcd = Etcd::on_loopback().expect("start etcd");
        let netns = etcd.netns().clone();
        let options = EtcdOptions { timeout: Duration::from_secs(1), ..options(&etcd) };
        let ground = Ground::new(DatastoreConfig::Etcd(options));
        netns.run(|| block_on(test(&mut etcd, ground)));
    });
}

#[test]
fn a_silent_etcd_removes_nobody_and_its_return_is_a_difference() {
    with_etcd(async |etcd, ground| {
        let store = ground.store();
        put(&store, "10.1.2.0-24", 2).await;
        let (mut events, _following) = follow(ground.store());
        assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
        etcd.pause().unwrap();
        let silent = next(&mut events).await;
        assert!(matches!(silent, WatchEvent::Silent(_)), "{silent:?}");
        etcd.resume().unwrap();
        assert_eq!(next(&mut events).await, WatchEvent::Answers);
        assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
        put(&store, "10.1.3.0-24", 3).await;
        assert!(matches!(next(&mut events).await, WatchEvent::Lease(LeaseEvent::Added(_))));
    });
}

#[test]
fn a_restarted_etcd_is_followed_again() {
    with_etcd(async |etcd, ground| {
        put(&ground.store(), "10.1.2.0-24", 2).await;
        let (mut events, _following) = follow(ground.store());
        assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
        // A watch that is opened only after the restart has missed nothing, and nothing is reset.
        put(&ground.store(), "10.1.3.0-24", 3).await;
        while !matches!(next(&mut events).await, WatchEvent::Lease(LeaseEvent::Added(_))) {}
        etcd.restart().unwrap();
        while !matches!(next(&mut events).await, WatchEvent::Lease(LeaseEvent::Reset(leases)) if leases.len() == 2) {}
        put(&ground.store(), "10.1.4.0-24", 4).await;
        while !matches!(next(&mut events).await, WatchEvent::Lease(LeaseEvent::Added(_))) {}
    });
}

#[test]
fn a_call_to_a_silent_etcd_ends_in_time_with_a_reason() {
    with_etcd(async |etcd, ground| {
        let store = ground.store();
        assert!(store.config().await.unwrap().is_none());
        etcd.pause().unwrap();
        // The threads of a stopped process stop one after the other, and the last one may still answer.
        let (start, error) = loop {
            let start = Instant::now();
            if let Err(error) = store.config().await {
                break (start, error);
            }
        };
        assert!(error.is_transient() && start.elapsed() < Duration::from_secs(10), "{error} {:?}", start.elapsed());
        let message = error.to_string();
        assert!(message.contains("/coreos.com/network/config") && message.contains(&etcd.endpoint()), "{message}");
        assert!(!message.contains('\n'), "{message}");
        etcd.resume().unwrap();
        until("the store answers", async || store.config().await.is_ok()).await;
    });
}

#[test]
fn a_watch_from_a_compacted_revision_is_a_gap() {
    with_etcd(async |etcd, ground| {
        let store = ground.store();
        let position = store.snapshot(&Scope::Everything).await.unwrap().position;
        let mut last = put(&store, "10.1.2.0-24", 2).await;
        for _ in 0..3 {
            let replaced = store.replace("10.1.2.0-24", last, &node(2, 2).to_value(), Lifetime::Ttl).await.unwrap();
            let Replaced::Yes(revision) = replaced else { panic!() };
            last = revision;
        }
        etcd.client(async |mut client| Ok(client.compact(last, None).await.map(drop)?)).unwrap();
        let mut changes = store.watch(Scope::Everything, &position).await.unwrap();
        assert_eq!(change(&mut changes).await, Change::Gap);
        assert!(futures::StreamExt::next(&mut changes).await.is_none(), "nothing follows a gap");
        let snapshot = store.snapshot(&Scope::Everything).await.unwrap();
        assert!(store.watch(Scope::Everything, &snapshot.position).await.is_ok());
    });
}

#[test]
fn an_etcd_that_lost_its_data_cuts_nobody_off_at_once() {
    sandbox::isolated(|| {
        let netns = Netns::new().unwrap();
        let start = || Etcd::builder(&netns, Ipv4Addr::LOCALHOST).start().unwrap();
        let etcd = start();
        let options = EtcdOptions { timeout: Duration::from_secs(1), ..options(&etcd) };
        let ground = Ground::new(DatastoreConfig::Etcd(options));
        netns.run(|| {
            block_on(async {
                let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
                let ours = holder.lease().subnet.to_string();
                let (sender, mut held) = mpsc::channel(16);
                let _keeping = tokio::spawn(holder.keep(sender));
                assert!(matches!(next(&mut held).await, HoldEvent::Held { .. }));
                put(&ground.store(), "10.1.2.0-24", 2).await;
                let (mut events, _following) = follow(ground.store());
                let before = reset(&mut events).await;
                assert_eq!(before.len(), 2);
                drop(etcd);
                let _wiped = start();
                let after = loop {
                    match next(&mut events).await {
                        WatchEvent::Lease(LeaseEvent::Reset(leases)) => break leases,
                        WatchEvent::Silent(_) | WatchEvent::Answers => {}
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(after.iter().map(|lease| lease.subnet.to_string()).collect::<Vec<_>>(), before);
                // The node that lives puts its lease back by itself.
                while !matches!(next(&mut held).await, HoldEvent::Retaken { .. } | HoldEvent::Held { .. }) {}
                assert_eq!(keys(&ground.store()).await, [ours]);
                // A new owner of a subnet replaces the one that stayed by grace.
                put(&ground.store(), "10.1.2.0-24", 7).await;
                while !matches!(next(&mut events).await, WatchEvent::Lease(LeaseEvent::Added(lease)) if lease.node == node(7, 7)) {}
            });
        });
    });
}

#[test]
fn an_outage_longer_than_the_renewal_degrades_and_heals() {
    with_etcd(async |etcd, ground| {
        let ground = ground.with_ttl(Duration::from_secs(4));
        let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
        let ours = holder.lease().subnet.to_string();
        let (sender, mut events) = mpsc::channel(16);
        let _keeping = tokio::spawn(holder.keep(sender));
        assert!(matches!(next(&mut events).await, HoldEvent::Held { .. }));
        etcd.pause().unwrap();
        let reason = loop {
            match next(&mut events).await {
                HoldEvent::Degraded { reason } => break reason,
                HoldEvent::Held { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(reason.contains(&ours) && !reason.contains('\n'), "{reason}");
        etcd.resume().unwrap();
        assert!(matches!(next(&mut events).await, HoldEvent::Held { .. } | HoldEvent::Retaken { .. }));
        assert_eq!(lease(&ground.store(), &ours).await.unwrap().value, node(1, 1).to_value());
    });
}

#[test]
fn leases_hang_on_an_etcd_lease_of_24_hours_and_reservations_on_none() {
    with_etcd(async |etcd, ground| {
        etcd.put(&format!("{SUBNETS}10.1.50.0-24"), r#"{"PublicIP":"192.0.2.5"}"#).unwrap();
        let claims = [(node(1, 1), true), (node(5, 5), false)];
        for (node, expires) in claims {
            let holder = acquire(ground.store(), &network(), &Claim::new(node)).await.unwrap();
            // Taken twice, as after a restart.
            let holder = acquire(ground.store(), &network(), &Claim::new(holder.lease().node.clone())).await.unwrap();
            let key = format!("{SUBNETS}{}", holder.lease().subnet);
            let ttl = etcd
                .client(async |mut client| {
                    let lease = client.get(key, None).await?.kvs()[0].lease();
                    Ok(if lease == 0 {
                        None
                    } else {
                        Some(client.lease_time_to_live(lease, None).await?.granted_ttl())
                    })
                })
                .unwrap();
            assert_eq!(ttl, expires.then_some(24 * 60 * 60));
        }
        // What the first take hung on has been given back.
        let leases = etcd.client(async |mut client| Ok(client.leases().await?.leases().len())).unwrap();
        assert_eq!(leases, 1);
    });
}

#[test]
fn ten_thousand_leases_cost_a_handful_of_calls() {
    const COUNT: u32 = 10_000;
    with_etcd(async |etcd, ground| {
        etcd.client(async |mut client| {
            let lease = client.lease_grant(86_400, None).await?.id();
            let all: Vec<u32> = (0..COUNT).collect();
            for some in all.chunks(100) {
                let put = |i: &u32| {
                    let [_, b, c, d] = (i << 6).to_be_bytes();
                    let key = format!("{SUBNETS}10.{b}.{c}.{d}-26");
                    let value =
                        overlay_user::lease::Node { public_ip: (0xac10_0000 + i).into(), ..node(1, 1) }.to_value();
                    TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))
                };
                client.txn(Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>())).await?;
            }
            Ok(())
        })
        .unwrap();
        let before = calls(etcd);
        let start = Instant::now();
        let (mut events, _following) = follow(ground.store());
        assert_eq!(reset(&mut events).await.len(), COUNT as usize);
        println!("{COUNT} leases read in {:?}", start.elapsed());
        let config = overlay_user::network::NetworkConfig::parse(
            br#"{"Network":"10.0.0.0/8","SubnetLen":26,"Backend":{"Type":"vxlan"}}"#,
        );
        acquire(ground.store(), &config.unwrap(), &Claim::new(node(1, 1))).await.unwrap();
        let made = calls(etcd) - before;
        assert!(made < 20, "{made} calls");
    });
}

/// How many calls the server has answered, of every kind.
fn calls(etcd: &Etcd) -> u64 {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, 2381)), LIMIT)?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let metrics = etcd.netns().run(|| ask().expect("read etcd's metrics"));
    let started = metrics.lines().filter(|line| line.starts_with("grpc_server_started_total{"));
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok()).expect("a number");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let total = started.map(count).sum::<f64>() as u64;
    total
}

#[test]
fn whatever_an_aborted_holder_left_is_ours_and_the_next_one_takes_it() {
    with_etcd(async |_, ground| {
        for after in 0..20 {
            let store = ground.store();
            let task = tokio::spawn(async move {
                let holder = acquire(Arc::clone(&store), &network(), &Claim::new(node(1, 1))).await.unwrap();
                let (sender, mut events) = mpsc::channel(1);
                let keeping = tokio::spawn(holder.keep(sender));
                while events.recv().await.is_some() {}
                keeping.await.unwrap();
            });
            tokio::time::sleep(Duration::from_millis(after)).await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        // A write that was under way may land after the next holder has looked, so more than one lease can be left.
        until("a holder takes what is there", async || {
            let before = keys(&ground.store()).await;
            let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
            before.contains(&holder.lease().subnet.to_string()) && keys(&ground.store()).await == before
        })
        .await;
        for key in keys(&ground.store()).await {
            assert_eq!(lease(&ground.store(), &key).await.unwrap().value, node(1, 1).to_value(), "{key}");
        }
    });
}
