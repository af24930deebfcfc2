//! A container's packets are its own: not its neighbour's, nor those of who had its address before.

use overlay_tests::{
    node::Container,
    packet_socket::{Frame, PacketSocket},
    packets::{Either, PROTO_UDP},
    process::wait_until,
};

use crate::ground::{
    Conversation, Forwarded, LIMIT, announce, approving, for_every_way, on_two_nodes, start_container, two, udp_socket,
};

fn watch(container: &Container) -> PacketSocket {
    PacketSocket::open(&container.netns, "eth0").unwrap()
}

/// How many UDP packets have come.
fn arrived(sees: &PacketSocket) -> usize {
    let udp = |packet: &Either| packet.protocol == PROTO_UDP;
    let pick = |frame: &Frame| (!frame.outgoing).then(|| Either::in_frame(&frame.bytes)).flatten().filter(udp);
    sees.drain(pick).unwrap().len()
}

for_every_way! {
    fn a_neighbour_sees_nothing_of_a_flow(way) {
        on_two_nodes(&approving(way, 2), |cluster| {
            let [one, two] = two(cluster);
            let neighbour = start_container(two, "neighbour", 3);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let (own, foreign) = (watch(two.container()), watch(&neighbour));
            conversation.exchange_many(500);
            assert_eq!((arrived(&own), arrived(&foreign)), (500, 0));
        });
    }

    fn a_new_container_with_an_old_address_gets_the_packets_and_the_old_one_none(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let old = two.container();
            let conversation = Conversation::between(one.container(), old);
            conversation.engage([one, two]);
            let port = conversation.far.local_addr().unwrap().port();
            // The old one lives on, with the address, and is off the network: so it shows what comes to it.
            two.netns().ip("link set dev container nomaster").unwrap();
            let new = start_container(two, "replacement", 2);
            announce(&new, two);
            let far = udp_socket(&new.netns, new.address(), port);
            let conversation = Conversation { far, ..conversation };
            wait_until("the new container to be reached", LIMIT, || conversation.exchange()).unwrap();
            let forwarded = Forwarded::count(two, "udp sport > 0");
            // The flow is approved all along, but the agent may not know yet whose the address is now.
            wait_until("packets for the new container to skip netfilter", LIMIT, || {
                let before = forwarded.packets();
                conversation.exchange() && forwarded.packets() == before
            })
            .unwrap();
            let (reaches_new, reaches_old, before) = (watch(&new), watch(old), forwarded.packets());
            conversation.exchange_many(500);
            assert_eq!((arrived(&reaches_new), arrived(&reaches_old)), (500, 0));
            assert_eq!(forwarded.packets(), before, "past netfilter");
        });
    }

    fn a_container_that_is_gone_makes_room_for_a_new_one_with_its_address(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let neighbour = start_container(two, "neighbour", 3);
            // A bridge floods what is for a port that is gone, with or without us.
            two.netns().ip("link set dev neighbour type bridge_slave flood off").unwrap();
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let port = conversation.far.local_addr().unwrap().port();
            two.netns().ip("link delete dev container").unwrap();
            let foreign = watch(&neighbour);
            for _ in 0..3 {
                assert!(!conversation.exchange());
            }
            let new = start_container(two, "container", 2);
            announce(&new, two);
            let far = udp_socket(&new.netns, new.address(), port);
            let conversation = Conversation { far, ..conversation };
            wait_until("the new container to be reached", LIMIT, || conversation.exchange()).unwrap();
            conversation.engage([one, two]);
            conversation.exchange_many(100);
            assert_eq!(arrived(&foreign), 0);
        });
    }
}
