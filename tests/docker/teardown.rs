//! `overlay teardown` beside a Docker that was there before and stays.

use std::fs;

use aya::{maps::loaded_maps, programs::loaded_programs};
use overlay_tests::{cluster::Cluster, process::output};

use crate::{
    ground::{Backend, dns, flow, report, settings, start_docker, with_docker},
    snapshot::Snapshot,
};

const QUERIES: u32 = 50;
const BULK: u64 = 8 << 20;

#[test]
fn teardown_leaves_a_node_with_docker_as_it_was_before_the_first_agent() {
    with_docker(|| {
        let settings = settings(Backend::Vxlan);
        let mut cluster = Cluster::new(&settings).unwrap();
        cluster.write_config(&settings.network_config()).unwrap();
        // Docker comes first here: what the agents will find of an earlier life says by which subnets.
        for (node, subnet) in cluster.nodes().iter().zip(["10.1.20.1/24", "10.1.21.1/24"]) {
            let subnet_env = format!(
                "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
            );
            fs::write(node.subnet_file(), subnet_env).unwrap();
        }
        // The other node is not what this is about.
        cluster.nodes_mut()[1].start_agent().unwrap();
        cluster.nodes_mut()[1].wait_ready().unwrap();
        let [one, two] = cluster.nodes() else { panic!("not two nodes") };
        let dockers = [start_docker(one), start_docker(two)];
        let here = dockers[0].run("here", "--publish 8080:80").unwrap();
        let there = dockers[1].run("there", "").unwrap();
        let before = Snapshot::of(one);
        before.expect_line("iptables", "-P FORWARD DROP");

        cluster.nodes_mut()[0].start_agent().unwrap();
        let subnet = cluster.nodes_mut()[0].wait_ready().unwrap();
        assert_eq!(subnet.address(2), here.container.v4(), "the subnet that Docker has");
        cluster.wait_converged().unwrap();
        for flow in [flow(&here, &there), flow(&there, &here)] {
            dns(&flow, QUERIES);
            flow.tcp_transfer(BULK).unwrap();
        }
        let during = Snapshot::of(&cluster.nodes()[0]);
        let (programs, maps) = (during.programs(), during.maps());
        assert!(programs.len() >= 4 && !maps.is_empty(), "{programs:?}, {maps:?}");
        let ours = during.lines_beyond(&before);

        let node = &mut cluster.nodes_mut()[0];
        assert!(node.stop_agent().unwrap().success());
        let mut teardown = node.overlay();
        output(teardown.arg("teardown").arg("--run-dir").arg(node.run_dir())).unwrap();
        let after = Snapshot::of(node);
        assert_eq!(after.lines_beyond(&before), Vec::<String>::new(), "left behind");
        assert_eq!(before.lines_beyond(&after), Vec::<String>::new(), "taken away too much");
        // The kernel lets go of programs and maps a moment after their last user.
        let left = || {
            let programs =
                loaded_programs().filter_map(|info| Some(info.ok()?.id())).filter(|id| programs.contains(id));
            let maps = loaded_maps().filter_map(|info| Some(info.ok()?.id())).filter(|id| maps.contains(id));
            programs.count() + maps.count()
        };
        overlay_tests::process::wait_until("programs and maps to be gone", crate::ground::LIMIT, || left() == 0)
            .unwrap();
        dockers[0].exec("here", "ping -c 1 -W 5 10.1.20.1").unwrap();
        report(format_args!(
            "teardown beside Docker: {} lines of state compared ({}), {} of them ours before, none after; {} programs and {} \
             maps gone",
            before.len(),
            Snapshot::PARTS.join(", "),
            ours.len(),
            programs.len(),
            maps.len()
        ));
    });
}
