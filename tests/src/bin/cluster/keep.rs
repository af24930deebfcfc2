//! `--keep`: leaves the cluster up, and says how to enter and how to end it.

use anyhow::Result;
use overlay_tests::{cluster::Cluster, sandbox::Contained};
use overlay_user::maps::Family;

use crate::joined;

/// Prints how to enter the cluster, ends the parent with exit code `code`, and stays until somebody ends it.
///
/// # Errors
///
/// When a namespace cannot be given a name, or the process cannot stay.
pub(crate) fn keep(cluster: &Cluster, contained: Contained, code: u8) -> Result<()> {
    let pid = contained.pid_outside();
    let enter = format!("nsenter --target {pid} --mount --pid");
    cluster.underlay().publish("underlay")?;
    println!("\nThe cluster stays up. Enter a node or a container:");
    for node in cluster.nodes() {
        let (name, addresses) = (node.name(), joined(&node.container().addresses));
        let container = format!("container-{name}");
        node.netns().publish(name)?;
        node.container().netns.publish(&container)?;
        println!("  {enter} --net=/proc/{pid}/root/run/netns/{name} bash");
        println!("  {enter} --net=/proc/{pid}/root/run/netns/{container} bash   # {addresses}");
    }
    println!("Read a node's maps, and its agent's log:");
    for node in cluster.nodes() {
        let (program, run_dir) = (node.overlay(), node.run_dir().display());
        for subnet in node.subnet().networks() {
            let map = if subnet.is_ipv4() { <[u8; 4]>::ROUTES } else { <[u8; 16]>::ROUTES };
            println!("  {enter} {} map dump {map} --run-dir {run_dir}", program.get_program().display());
        }
        println!("  {enter} tail -f {run_dir}/agent.log");
    }
    println!("End all of it:\n  kill {pid}");
    contained.stay(code)
}
