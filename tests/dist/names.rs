//! The static program resolves host names, though its C library cannot load the modules for it.

use std::{fs, net::UdpSocket, thread};

use overlay_tests::{
    etcd::Etcd,
    process::{command, output},
    sandbox::scratch,
};

use crate::package::Packages;

/// Stores a network config with the released program, alone in its root, at an etcd that it knows by name.
pub(crate) fn are_resolved_without_a_library(packages: &Packages) {
    let root = scratch().join("alone");
    fs::create_dir_all(root.join("etc")).unwrap();
    let mut tar = command("tar");
    tar.arg("--extract").arg("--file").arg(packages.file(".tar.gz")).arg("--strip-components=1").arg("--directory");
    output(tar.arg(&root)).unwrap();

    let etcd = Etcd::on_loopback().unwrap();
    let socket = etcd.netns().run(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    // Ends with the process.
    thread::spawn(move || answer_loopback(&socket));
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 etcd-in-hosts\n").unwrap();
    // Absent, and one with modules that are not there.
    for sources in [None, Some("hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\n")] {
        if let Some(sources) = sources {
            fs::write(root.join("etc/nsswitch.conf"), sources).unwrap();
        }
        for host in ["etcd-in-hosts", "etcd.example.test"] {
            let mut overlay = etcd.netns().command("chroot");
            overlay.arg(&root).args(["/overlay", "config", "set", r#"{"Network":"10.1.0.0/16"}"#]);
            output(overlay.arg("--etcd-endpoints").arg(format!("http://{host}:2379"))).unwrap();
        }
    }
}

/// A name server for which every name is 127.0.0.1, and no name has any other record.
fn answer_loopback(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query) {
        const HEADER: usize = 12;
        let Some(name) = query[HEADER..length].iter().position(|byte| *byte == 0) else { continue };
        // Behind the name: its end, type and class.
        let end = HEADER + name + 5;
        let answers = u8::from(query[end - 4..end - 2] == [0, 1]);
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
        answer.extend(&query[HEADER..end]);
        if answers == 1 {
            // The name as above, A, IN, a minute, four bytes.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        if socket.send_to(&answer, client).is_err() {
            return;
        }
    }
}
