//! Finds the process behind a port, so that the error can name it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Name and process id of the program whose UDP socket keeps us off `port` on `address`, from `/proc`.
pub(super) fn of_udp_port(address: IpAddr, port: u16) -> Option<String> {
    let inode = ["udp", "udp6"].iter().find_map(|table| {
        // Sockets of the calling thread's network namespace.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok()?;
        inode_in(&text, address, port)
    })?;
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let name = has_socket(&process, &wanted).then(|| fs::read_to_string(process.join("comm")))?.ok()?;
        Some(format!("{} (pid {pid})", name.trim_end()))
    })
}

/// The inode (tenth column) of the socket on `address` or on any address, from the text of `/proc/net/udp`.
fn inode_in(table: &str, address: IpAddr, port: u16) -> Option<u64> {
    // The address is printed as numbers of 32 bits in the machine's byte order.
    let word = |bytes: &[u8; 4]| format!("{:08X}", u32::from_ne_bytes(*bytes));
    let ours: String = match address {
        IpAddr::V4(address) => word(&address.octets()),
        IpAddr::V6(address) => address.octets().as_chunks().0.iter().map(word).collect(),
    };
    let port = format!("{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, local_port) = columns.get(1)?.split_once(':')?;
        let in_the_way = local == ours || local.bytes().all(|digit| digit == b'0');
        (in_the_way && local_port == port).then(|| columns.get(9)?.parse().ok())?
    })
}

fn has_socket(process: &Path, wanted: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .flatten()
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_on_our_address_or_on_all_is_in_the_way() {
        let table = "sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref\n\
             1: 0100007F:205D 00000000:0000 07 00000000:00000000 00:00000000 00000000 101 0 11111 2\n\
             2: 00000000:205D 00000000:0000 07 00000000:00000000 00:00000000 00000000   0 0 22222 2\n\
             3: 0132A8C0:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000   0 0 33333 2\n";
        let address = IpAddr::from([192, 168, 50, 1]);
        assert_eq!(inode_in(table, address, 8285), Some(22222));
        assert_eq!(inode_in(table, IpAddr::from([127, 0, 0, 1]), 8285), Some(11111));
        assert_eq!(inode_in(table, IpAddr::from([127, 0, 0, 1]), 8472), None);
        if cfg!(target_endian = "little") {
            assert_eq!(inode_in(table, address, 8472), Some(33333));
        }
    }
}
