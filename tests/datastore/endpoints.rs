//! Ways to an etcd: several endpoints, IPv6, TLS, users.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use etcd_client::{Permission, PermissionType};
use overlay_tests::{
    authority::{Authority, Pair},
    etcd::Etcd,
    netns::Netns,
    sandbox,
};
use overlay_user::datastore::{self, DatastoreConfig, DatastoreError, EtcdOptions, Scope};
use tokio::net::TcpListener;

use crate::{
    ground::{block_on, options},
    watching::{follow, put, reset},
};

/// Writes and reads through a datastore opened with `options`.
async fn use_store(options: EtcdOptions) -> Result<(), DatastoreError> {
    let store = datastore::open(&DatastoreConfig::Etcd(options))?;
    store.put_config(b"{}").await?;
    assert_eq!(store.config().await?.expect("just written").value, b"{}");
    let position = store.snapshot(&Scope::Everything).await?.position;
    store.watch(Scope::Everything, &position).await.map(drop)
}

fn with_etcd(
    builder: impl FnOnce(overlay_tests::etcd::Builder) -> overlay_tests::etcd::Builder + Send,
    test: impl AsyncFnOnce(&Etcd) + Send,
) {
    sandbox::isolated(|| {
        let netns = Netns::new().unwrap();
        let etcd = builder(Etcd::builder(&netns, Ipv4Addr::LOCALHOST)).start().expect("start etcd");
        netns.run(|| block_on(test(&etcd)));
    });
}

#[test]
fn a_dead_and_a_deaf_endpoint_are_passed_over() {
    with_etcd(
        |etcd| etcd,
        async |etcd| {
            // Accepts connections and says nothing.
            let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let deaf_url = format!("http://{}", deaf.local_addr().unwrap());
            let dead = "http://127.0.0.1:9".to_owned();
            let timeout = Duration::from_secs(2);
            let options = EtcdOptions {
                endpoints: vec![dead.clone(), deaf_url.clone(), etcd.endpoint()],
                timeout,
                ..options(etcd)
            };
            let store = datastore::open(&DatastoreConfig::Etcd(options.clone())).unwrap();
            store.put_config(b"{}").await.unwrap();
            let start = Instant::now();
            for _ in 0..10 {
                store.config().await.unwrap();
            }
            assert!(start.elapsed() < timeout, "it stays with the one that works");
            let (mut events, _following) = follow(store);
            assert!(reset(&mut events).await.is_empty());
            let options = EtcdOptions { endpoints: vec![dead.clone(), deaf_url.clone()], ..options };
            let error = use_store(options).await.unwrap_err();
            let message = error.to_string();
            assert!(error.is_transient() && message.contains(&dead) && message.contains(&deaf_url), "{message}");
        },
    );
}

#[test]
fn an_endpoint_that_dies_later_is_left() {
    sandbox::isolated(|| {
        let netns = Netns::new().unwrap();
        netns.ip("address add 127.0.0.2/8 dev lo").unwrap();
        let start = |address| Etcd::builder(&netns, address).start().unwrap();
        let (mut one, two) = (start(Ipv4Addr::LOCALHOST), start(Ipv4Addr::new(127, 0, 0, 2)));
        let endpoints = vec![one.endpoint(), two.endpoint()];
        netns.run(|| {
            block_on(async {
                let store =
                    datastore::open(&DatastoreConfig::Etcd(EtcdOptions { endpoints, ..options(&one) })).unwrap();
                store.put_config(b"one").await.unwrap();
                one.kill().unwrap();
                store.put_config(b"two").await.unwrap();
                assert_eq!(two.get("/coreos.com/network/config").unwrap().as_deref(), Some("two"));
            });
        });
    });
}

#[test]
fn ipv6_endpoints_and_other_prefixes_work() {
    let urls = "http://127.0.0.1:2379,http://[::1]:2379";
    with_etcd(
        |etcd| etcd.args(["--listen-client-urls", urls]),
        async |etcd| {
            let options = EtcdOptions {
                endpoints: EtcdOptions::endpoints_from("http://[::1]:2379"),
                prefix: "/other/".to_owned(),
                ..options(etcd)
            };
            use_store(options).await.unwrap();
            assert_eq!(etcd.get("/other/config").unwrap().as_deref(), Some("{}"));
        },
    );
}

#[test]
fn tls_with_client_certificates() {
    sandbox::isolated(|| {
        let directory = tempfile::tempdir_in(sandbox::scratch()).unwrap();
        let (ours, others) =
            (Authority::new(directory.path(), "ours").unwrap(), Authority::new(directory.path(), "others").unwrap());
        let (server, client, stranger) =
            (ours.issue("server").unwrap(), ours.issue("client").unwrap(), others.issue("stranger").unwrap());
        let netns = Netns::new().unwrap();
        let start = |arguments: &[&str]| {
            let builder = Etcd::builder(&netns, Ipv4Addr::LOCALHOST).tls().args(arguments);
            let builder = builder.args(["--listen-client-urls", "https://127.0.0.1:2379,https://[::1]:2379"]);
            builder
                .args(["--cert-file".into(), server.cert.clone(), "--key-file".into(), server.key.clone()])
                .start()
                .unwrap()
        };
        let trust = |ca: &Authority, pair: Option<&Pair>, endpoint: &str| EtcdOptions {
            endpoints: vec![endpoint.to_owned()],
            ca_file: Some(ca.file()),
            cert_file: pair.map(|pair| pair.cert.clone()),
            key_file: pair.map(|pair| pair.key.clone()),
            timeout: Duration::from_secs(2),
            ..EtcdOptions::default()
        };
        let (v4, v6) = ("https://127.0.0.1:2379", "https://[::1]:2379");
        let ca = ours.file();
        let strict = start(&["--client-cert-auth", "--trusted-ca-file", ca.to_str().unwrap()]);
        netns.run(|| {
            block_on(async {
                use_store(trust(&ours, Some(&client), v4)).await.unwrap();
                use_store(trust(&ours, Some(&client), v6)).await.unwrap();
                for (options, why) in [
                    (trust(&ours, None, v4), "no client certificate"),
                    (trust(&ours, Some(&stranger), v4), "a stranger's certificate"),
                    (trust(&others, Some(&client), v4), "a server that others signed"),
                ] {
                    let error = use_store(options).await.expect_err(why);
                    assert!(!error.to_string().contains('\n'), "{error}");
                    println!("{why}: {error}");
                }
            });
        });
        drop(strict);
        let _open = start(&[]);
        netns.run(|| {
            block_on(async {
                use_store(trust(&ours, None, v4)).await.expect("the CA counts without a client certificate");
                use_store(trust(&others, None, v4)).await.expect_err("a server that others signed");
            });
        });
    });
}

#[test]
fn users_and_passwords() {
    with_etcd(
        |etcd| etcd.args(["--auth-token", "simple"]),
        async |etcd| {
            etcd.client(async |mut client| {
                client.role_add("overlay").await?;
                let permission = Permission::new(PermissionType::Readwrite, "/coreos.com/network/").with_prefix();
                client.role_grant_permission("overlay", permission).await?;
                client.user_add("overlay", "secret", None).await?;
                client.user_grant_role("overlay", "overlay").await?;
                client.user_add("root", "root", None).await?;
                client.user_grant_role("root", "root").await?;
                client.auth_enable().await?;
                Ok(())
            })
            .unwrap();
            let user = |name: &str, password: &str| EtcdOptions {
                user: Some((name.to_owned(), password.to_owned())),
                ..options(etcd)
            };
            use_store(user("overlay", "secret")).await.unwrap();
            let store = datastore::open(&DatastoreConfig::Etcd(user("overlay", "secret"))).unwrap();
            put(&store, "10.1.2.0-24", 2).await;
            let (mut events, _following) = follow(store);
            assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
            let elsewhere = EtcdOptions { prefix: "/elsewhere".to_owned(), ..user("overlay", "secret") };
            for (options, why) in [
                (user("overlay", "wrong"), "a wrong password"),
                (user("nobody", "secret"), "an unknown user"),
                (options(etcd), "no user"),
                (elsewhere, "keys without permission"),
            ] {
                let error = use_store(options).await.expect_err(why);
                assert!(!error.is_transient(), "{why}: {error}");
                assert!(!error.to_string().contains("secret") && !error.to_string().contains('\n'), "{error}");
                println!("{why}: {error}");
            }
        },
    );
}

#[test]
fn nonsense_is_refused_before_anything_is_connected() {
    for endpoints in [vec![], vec!["http://".to_owned()], vec!["ftp://x".to_owned()], vec!["http://a b".to_owned()]] {
        let options = EtcdOptions { endpoints: endpoints.clone(), ..EtcdOptions::default() };
        let error = datastore::open(&DatastoreConfig::Etcd(options)).expect_err(&format!("{endpoints:?}"));
        assert!(!error.is_transient(), "{error}");
    }
}
