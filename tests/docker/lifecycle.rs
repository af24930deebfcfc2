//! `docker restart` and `docker rm`.

use overlay_common::Endpoint;
use overlay_tests::{docker::DockerContainer, process::wait_until, traffic::ping};

use crate::ground::{Backend, LIMIT, dns, flow, on_two_dockers, report};

const RESTARTS: u32 = 5;
const QUERIES: u32 = 50;
const BULK: u64 = 8 << 20;

#[test]
fn a_container_that_is_restarted_or_made_anew_is_reached_at_once_and_one_that_is_removed_is_forgotten() {
    on_two_dockers(Backend::Vxlan, |ground| {
        let [here, there] = ground.containers();
        let docker = &ground.dockers[1];
        let talk = |with: &DockerContainer| {
            for flow in [flow(&here, with), flow(with, &here)] {
                dns(&flow, QUERIES);
                flow.tcp_transfer(BULK).unwrap();
            }
        };
        talk(&there);
        for _ in 0..RESTARTS {
            docker.docker("restart --time 0 there").unwrap();
            talk(&docker.container("there").unwrap());
        }

        let node = ground.nodes()[1];
        let address = docker.container("there").unwrap().container.v4();
        let known = || node.counters().endpoints().unwrap().get(&address).map(Endpoint::ifindex);
        wait_until("the container to be known", LIMIT, || known().is_some()).unwrap();
        let ifindex = known().unwrap();
        docker.docker("rm --force there").unwrap();
        let links =
            || std::fs::read_dir(node.run_dir().join("bpf/v1/links")).unwrap().map(|link| link.unwrap().file_name());
        let of_it = || links().filter(|link| link.to_string_lossy().ends_with(&format!("-{ifindex}"))).count();
        wait_until("the container to be forgotten", LIMIT, || known().is_none() && of_it() == 0).unwrap();
        assert_eq!(ping(&here.container.netns, address, 1).unwrap().received, 0);

        let again = docker.run("again", "").unwrap();
        assert_eq!(again.container.v4(), address, "Docker gives away the first free address");
        talk(&again);
        report(format_args!(
            "{RESTARTS} restarts, 1 removal, 1 container anew with the same address: after each, {} DNS-like queries and {} \
             MiB at once, 0 lost",
            2 * QUERIES,
            2 * (BULK >> 20)
        ));
    });
}
