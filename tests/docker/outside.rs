//! Containers talk to a machine that has no route to them.

use std::net::{TcpListener, TcpStream, UdpSocket};

use overlay_tests::traffic::Flow;

use crate::ground::{Backend, LIMIT, flow, on_two_dockers, report};

const CONNECTIONS: u32 = 10;
const PACKETS: u32 = 50;
const BULK: u64 = 16 << 20;

#[test]
fn containers_reach_the_outside_under_their_nodes_addresses_and_each_other_under_their_own() {
    on_two_dockers(Backend::Vxlan, |ground| {
        let (outsider, outside) = ground.outsider();
        let [here, there] = ground.containers();
        for (container, node) in [&here, &there].into_iter().zip(ground.nodes()) {
            let (inside, own) = (&container.container.netns, container.container.v4());
            outsider.ip(&format!("route get {own}")).expect_err("no route from the outside");
            let listener = outsider.run(|| TcpListener::bind((outside, 80))).unwrap();
            for _ in 0..CONNECTIONS {
                let _client = inside.run(|| TcpStream::connect_timeout(&(outside, 80).into(), LIMIT)).unwrap();
                assert_eq!(listener.accept().unwrap().1.ip(), node.address(), "TCP from {own}");
            }
            let log = outsider.run(|| UdpSocket::bind((outside, 53))).unwrap();
            let client = inside.run(|| UdpSocket::bind((own, 0))).unwrap();
            for socket in [&log, &client] {
                socket.set_read_timeout(Some(LIMIT)).unwrap();
            }
            for _ in 0..PACKETS {
                client.send_to(b"question", (outside, 53)).unwrap();
                let from = log.recv_from(&mut [0; 16]).unwrap().1;
                assert_eq!(from.ip(), node.address(), "UDP from {own}");
                log.send_to(b"answer", from).unwrap();
                assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, (outside, 53).into());
            }
            let bulk = Flow::new(inside, &outsider, outside);
            bulk.tcp_transfer(BULK).unwrap();
            let flows = node.counters().flows().unwrap();
            assert!(flows.iter().all(|(key, _)| key.remote().0 != outside), "a translated flow on the fast path");
        }
        let across = flow(&here, &there);
        let listener = across.to.run(|| TcpListener::bind((across.address, 80))).unwrap();
        let _client = across.from.run(|| TcpStream::connect_timeout(&(across.address, 80).into(), LIMIT)).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), here.container.v4(), "within the overlay");
        report(format_args!(
            "2 containers to the outside: {} connections, {} UDP questions and answers, {} MiB, each seen from its node's \
             address",
            2 * CONNECTIONS,
            2 * PACKETS,
            2 * (BULK >> 20)
        ));
    });
}
