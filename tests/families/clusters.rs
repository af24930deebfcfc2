//! Clusters of our own nodes.

use overlay_tests::families::Families;

use crate::ground::{all_talk, on_cluster, settings};

#[test]
fn in_a_dual_stack_cluster_all_containers_talk_over_both_families() {
    on_cluster(&settings(3, Families::Dual, Families::Dual), |cluster| all_talk(cluster.nodes()));
}
