//! Container to container across nodes.

use overlay_tests::{docker::DockerContainer, for_either_backend, node::Node, process::wait_until};

use crate::ground::{Backend, LIMIT, dns, flow, on_two_dockers, report};

const QUERIES: u32 = 200;
const ECHOES: u32 = 300;
const BULK: u64 = 64 << 20;
const PINGS: u32 = 5;

/// Whether `node` carries a flow of the container on the fast path.
fn is_fast(node: &Node, container: &DockerContainer) -> bool {
    let flows = node.counters().flows().unwrap();
    flows.iter().any(|(key, _)| key.local().0 == container.container.v4())
}

for_either_backend! {
    fn containers_of_two_dockers_talk_across_the_nodes(backend) {
        on_two_dockers(backend, |ground| {
            let containers = ground.containers();
            for (container, (docker, node)) in containers.iter().zip(ground.dockers.iter().zip(ground.nodes())) {
                let subnet = node.subnet();
                let in_subnet = (u32::from(container.container.v4()) ^ u32::from(subnet.subnet())) >> (32 - subnet.length());
                assert_eq!(in_subnet, 0, "{container:?} in {subnet:?}");
                let mtu = docker.exec(&container.name, "cat /sys/class/net/eth0/mtu").unwrap();
                assert_eq!(mtu.trim().parse(), Ok(subnet.mtu));
            }
            let [here, there] = &containers;
            for (docker, from, to) in [(&ground.dockers[0], here, there), (&ground.dockers[1], there, here)] {
                docker.exec(&from.name, &format!("ping -c {PINGS} -i 0.1 -W 5 {}", to.container.v4())).unwrap();
                let flow = flow(from, to);
                dns(&flow, QUERIES);
                assert_eq!(flow.udp_echo(ECHOES, 1000).unwrap(), ECHOES);
                assert!(flow.tcp_transfer(BULK).unwrap().bytes >= BULK);
            }
            let [one, two] = ground.nodes();
            let conversation = flow(here, there);
            wait_until("the fast path", LIMIT, || {
                conversation.udp_echo(20, 100).unwrap() == 20 && is_fast(one, here) && is_fast(two, there)
            })
            .unwrap();
            report(format_args!(
                "{backend}: 2 pairs of containers across nodes: {} pings, {} DNS-like queries, {} UDP echoes, {} MiB over TCP, \
                 0 lost",
                2 * PINGS, 2 * QUERIES, 2 * ECHOES, 2 * (BULK >> 20)
            ));
        });
    }
}
