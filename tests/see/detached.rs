//! Programs that somebody detaches: the pins stay, so only the kernel knows. It is said wherever one looks, and mended.

use nix::net::if_::if_indextoname;
use overlay_tests::{
    attached,
    cluster::{Backend, Cluster, Settings},
    node::{Node, UNDERLAY_DEVICE},
    process::{output, wait_until},
    sandbox::isolated,
    tap_nic::TapNic,
    traffic::ping,
    two_nodes::{LIMIT, flow, on_two_nodes, settings, two},
};
use serde_json::Value;

use crate::{
    metrics::{Scrape, get, scraped},
    status::json,
};

/// How many interfaces have the program, as the metric says it.
fn attached_to(node: &Node, program: &str) -> f64 {
    Scrape::of(node).value("overlay_programs_attached", &[&format!("program=\"{program}\"")])
}

/// Whether `/readyz`, the metric and `overlay status` all say that `program` is missing on `device`.
fn is_said(node: &Node, program: &str, device: &str) -> bool {
    let line = format!("{program} is not attached to {device}: ");
    let (code, body) = get(node, "/readyz");
    let (exit, status) = json(node);
    let problems = status["problems"].as_array().unwrap();
    let said = problems.iter().filter_map(Value::as_str).filter(|problem| problem.contains(&line)).count();
    (code, body.starts_with(&line), attached_to(node, program), exit, said) == (503, true, 0.0, Some(1), 1)
}

/// Detaches until it was seen everywhere at once: the agent may look in between, and mend it. Then waits until it does.
#[track_caller]
fn is_said_and_mended(node: &Node, program: &str, device: &str, detach: impl Fn()) {
    let seen = (0..3).any(|_| {
        detach();
        is_said(node, program, device)
    });
    assert!(seen, "{:?} {:?} {}", get(node, "/readyz"), json(node).1["problems"], attached_to(node, program));
    wait_until("the agent to attach it again", 4 * LIMIT, || get(node, "/readyz").0 == 200).unwrap();
    assert_eq!((attached_to(node, program), json(node).0), (1.0, Some(0)), "{program}");
}

#[test]
fn a_detached_link_is_said_by_readyz_status_and_metrics_and_attached_again() {
    on_two_nodes(&scraped(), |cluster| {
        let [one, two] = two(cluster);
        flow(one, two).tcp_transfer(1 << 20).unwrap();
        for (program, device) in
            [("from_underlay", UNDERLAY_DEVICE), ("to_overlay", "overlay.1"), ("admit", "overlay.1")]
        {
            let pin = format!("{program}-{}", one.netns().index_of(device).unwrap());
            is_said_and_mended(one, program, device, || attached::detach(one.run_dir(), &pin).unwrap());
            flow(one, two).tcp_transfer(1 << 20).unwrap();
        }
    });
}

#[test]
fn a_containers_detached_program_is_a_problem_and_attached_again_but_traffic_flows() {
    on_two_nodes(&scraped(), |cluster| {
        let [one, two] = two(cluster);
        let links = attached::links(one.run_dir()).unwrap();
        let pin = links.into_keys().find(|pin| pin.starts_with("from_container-")).unwrap();
        let said = || {
            attached::detach(one.run_dir(), &pin).unwrap();
            let (exit, shown) = json(one);
            exit == Some(1) && shown["problems"].to_string().contains("from_container is not attached to ")
        };
        assert!((0..3).any(|_| said()), "{}", json(one).1);
        assert_eq!(get(one, "/readyz").0, 200);
        ping(&one.container().netns, two.container().v4(), 1).unwrap();
        wait_until("the agent to attach it again", 4 * LIMIT, || attached_to(one, "from_container") == 1.0).unwrap();
    });
}

#[test]
fn a_container_that_leaves_while_no_agent_runs_is_gone_and_no_problem() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let node = &mut cluster.nodes_mut()[0];
        let index = node.counters().endpoints().unwrap()[&node.container().v4()].ifindex();
        node.stop_agent().unwrap();
        let veth = node.netns().run(|| if_indextoname(index)).unwrap().into_string().unwrap();
        node.netns().ip(&format!("link delete {veth}")).unwrap();
        let (_, shown) = json(node);
        let problems = shown["problems"].as_array().unwrap().as_slice();
        assert!(matches!(problems, [only] if only.to_string().contains("no agent runs")), "{shown}");
        let dumped =
            output(node.overlay().args(["map", "dump", "ENDPOINTS", "--run-dir"]).arg(node.run_dir())).unwrap();
        assert!(dumped.contains(&format!("{index} (gone)")), "{dumped}");
        node.start_agent().unwrap();
        let pins = || attached::links(node.run_dir()).unwrap().into_keys();
        let forgotten = || pins().all(|pin| !pin.ends_with(&format!("-{index}")));
        wait_until("its pins to be gone", LIMIT, forgotten).unwrap();
    });
}

#[test]
fn a_removed_filter_is_said_and_attached_again() {
    let mut settings = scraped();
    settings.agent_arguments.push("--clsact".to_owned());
    on_two_nodes(&settings, |cluster| {
        let [one, two] = two(cluster);
        let remove =
            || output(one.netns().command("tc").args(["qdisc", "del", "dev", "eth0", "clsact"])).map(drop).unwrap();
        is_said_and_mended(one, "from_underlay", UNDERLAY_DEVICE, remove);
        flow(one, two).tcp_transfer(1 << 20).unwrap();
    });
}

#[test]
fn xdp_is_looked_for_where_it_decapsulates() {
    isolated(|| {
        let settings = Settings { agent_arguments: scraped().agent_arguments, ..settings(Backend::Vxlan) };
        let mut cluster = Cluster::new(&settings).unwrap();
        let _nics: Vec<_> =
            cluster.nodes().iter().map(|node| TapNic::replace_underlay_of(node, &cluster).unwrap()).collect();
        cluster.bring_up(&settings.network_config()).unwrap();
        let [one, two] = two(&cluster);
        let pin = format!("xdp_decap-{}", one.netns().index_of(UNDERLAY_DEVICE).unwrap());
        is_said_and_mended(one, "xdp_decap", UNDERLAY_DEVICE, || attached::detach(one.run_dir(), &pin).unwrap());
        flow(one, two).tcp_transfer(1 << 20).unwrap();
    });
}
