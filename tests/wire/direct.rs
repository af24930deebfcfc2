//! `DirectRouting`: nodes that share a link route to each other without encapsulation.

use overlay_common::Route;
use overlay_tests::{cluster::Settings, process::output, traffic::ping};

use crate::ground::{Backend, on_two_nodes, settings, two};

fn direct() -> Settings {
    Settings { direct_routing: true, ..settings(Backend::Vxlan) }
}

#[test]
fn nodes_on_one_link_route_plainly_where_the_config_says_so() {
    on_two_nodes(&direct(), |cluster| {
        let [here, there] = two(cluster);
        assert!(here.counters().routes().unwrap().values().all(Route::is_direct));
        for (from, to) in [(here, there), (there, here)] {
            assert_eq!(ping(&from.container().netns, to.container().v4(), 3).unwrap().received, 3);
        }
        let traffic = here.counters().traffic(there.subnet().subnet()).unwrap();
        assert_eq!((traffic.encap_packets, traffic.decap_packets), (0, 0), "encapsulated all the same");
        let route = here.netns().ip("route show proto 79").unwrap();
        assert!(route.contains(&format!("via {}", there.address())), "{route:?}");
    });
}

#[test]
fn plain_routes_go_with_their_overlay_and_those_of_another_stay() {
    on_two_nodes(&direct(), |cluster| {
        let foreign = "172.31.5.0/24";
        let node = &mut cluster.nodes_mut()[0];
        node.netns().ip(&format!("route add {foreign} via 192.168.50.2 dev eth0 proto 79")).unwrap();
        node.stop_agent().unwrap();
        node.start_agent().unwrap();
        node.wait_ready().unwrap();
        let routes = node.netns().ip("route show proto 79").unwrap();
        assert_eq!(routes.lines().count(), 2, "{routes:?}");
        node.stop_agent().unwrap();
        output(node.overlay().args(["teardown", "--run-dir"]).arg(node.run_dir())).unwrap();
        let routes = node.netns().ip("route show proto 79").unwrap();
        assert_eq!(routes.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), [foreign]);
    });
}
