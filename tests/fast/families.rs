//! What `engaged.rs` says of IPv4, of the other pairs of families inside and outside. Apart from those tests, which older kernels
//! have to pass too: before Linux 6.3 a packet that leaves a tunnel of the other family keeps to the long way.

use overlay_tests::two_nodes::Way;

use crate::{
    engaged::{assert_hardly_seen, assert_streams_arrive},
    ground::{approving, on_two_nodes, xdp},
};

/// IPv6 over either underlay, and IPv4 over that of IPv6.
const WAYS: [Way; 3] = [Way::IPV6_OVER_IPV6, Way::IPV6_OVER_IPV4, Way::IPV4_OVER_IPV6];

#[test]
fn approved_flows_take_the_fast_path() {
    for way in WAYS {
        on_two_nodes(&approving(way, 2), |cluster| assert_hardly_seen(cluster));
    }
}

#[test]
fn what_native_xdp_has_decapsulated_takes_the_fast_path_too() {
    for way in WAYS {
        on_two_nodes(&xdp(way), |cluster| {
            assert_hardly_seen(cluster);
            assert_streams_arrive(cluster);
        });
    }
}
