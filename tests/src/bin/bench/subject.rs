//! What is compared. A new way to carry packets is a new row here, and a way to build it in `bed.rs`.

use overlay_tests::cluster::Backend;

/// How packets get from one container to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// From node to node, without containers.
    Bare,
    /// Routed between the nodes' bridges, without encapsulation: flannel's host-gw.
    Plain,
    /// The kernel's VXLAN device with a route, a neighbour and an FDB entry for each node, as flannel sets it up.
    KernelVxlan,
    /// A user-space proxy on a TUN device, built after flannel's for its udp backend.
    TunProxy,
    /// Our agent with these arguments.
    Overlay(Backend, &'static [&'static str]),
}

/// One of the things compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// Its name in reports and for `--only`.
    pub(crate) name: &'static str,
    /// The way of the packets.
    pub(crate) path: Path,
    /// Whether both nodes masquerade what leaves the overlay network, as `--ip-masq` has it.
    pub(crate) masquerade: bool,
}

impl Subject {
    const fn new(name: &'static str, path: Path, masquerade: bool) -> Self {
        Self { name, path, masquerade }
    }
}

/// Plain routing, measured a second time: what differs between the two is noise.
pub(crate) const AGAIN: &str = "plain-again";

/// Arguments of our agent.
const FAST: &[&str] = &[];
const SLOW: &[&str] = &["--fast-path", "off"];
const FAST_MASQUERADE: &[&str] = &["--ip-masq"];
const SLOW_MASQUERADE: &[&str] = &["--fast-path", "off", "--ip-masq"];

/// All of them, in the order of measurement. The two that are the same stand far apart.
pub(crate) const SUBJECTS: [Subject; 15] = [
    Subject::new("plain", Path::Plain, false),
    Subject::new("bare", Path::Bare, false),
    Subject::new("kernel-vxlan", Path::KernelVxlan, false),
    Subject::new("overlay-vxlan", Path::Overlay(Backend::Vxlan, FAST), false),
    Subject::new("overlay-vxlan-slow", Path::Overlay(Backend::Vxlan, SLOW), false),
    Subject::new("overlay-udp", Path::Overlay(Backend::Udp, FAST), false),
    Subject::new("overlay-udp-slow", Path::Overlay(Backend::Udp, SLOW), false),
    Subject::new("tun-proxy", Path::TunProxy, false),
    Subject::new("plain+masq", Path::Plain, true),
    Subject::new("kernel-vxlan+masq", Path::KernelVxlan, true),
    Subject::new("overlay-vxlan+masq", Path::Overlay(Backend::Vxlan, FAST_MASQUERADE), true),
    Subject::new("overlay-vxlan-slow+masq", Path::Overlay(Backend::Vxlan, SLOW_MASQUERADE), true),
    Subject::new("overlay-udp+masq", Path::Overlay(Backend::Udp, FAST_MASQUERADE), true),
    Subject::new("overlay-udp-slow+masq", Path::Overlay(Backend::Udp, SLOW_MASQUERADE), true),
    Subject::new(AGAIN, Path::Plain, false),
];

/// The subjects that the others are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// [`Path::KernelVxlan`].
    KernelVxlan,
    /// [`Path::Plain`].
    Plain,
    /// [`Path::Bare`].
    Bare,
}

impl Reference {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::KernelVxlan, Self::Plain, Self::Bare];

    /// The name of the subject that `subject` is compared with: like with like, so with masquerading the one that
    /// masquerades too.
    pub(crate) const fn name(self, subject: &Subject) -> &'static str {
        match (self, subject.masquerade) {
            (Self::KernelVxlan, false) => "kernel-vxlan",
            (Self::KernelVxlan, true) => "kernel-vxlan+masq",
            (Self::Plain, false) => "plain",
            (Self::Plain, true) => "plain+masq",
            (Self::Bare, _) => "bare",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_a_subject_and_no_name_is_given_twice() {
        for subject in &SUBJECTS {
            assert_eq!(SUBJECTS.iter().filter(|other| other.name == subject.name).count(), 1, "{}", subject.name);
            for reference in Reference::ALL {
                assert!(SUBJECTS.iter().any(|other| other.name == reference.name(subject)), "{reference:?}");
            }
        }
    }
}
