//! What is compared. A new way to carry packets is a new row here, and a way to build it in `bed.rs`.

use overlay_tests::{cluster::Backend, families::Families};

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
    /// The family of the containers' packets, and that of the underlay.
    pub(crate) ip: Ip,
}

/// One family inside, and one outside; where nothing is encapsulated, both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip {
    /// Of the containers' packets.
    pub(crate) inner: Families,
    /// Of the underlay.
    pub(crate) outer: Families,
}

impl Ip {
    /// IPv4 inside and outside.
    pub(crate) const V4: Self = Self { inner: Families::V4, outer: Families::V4 };
    const V6: Self = Self { inner: Families::V6, outer: Families::V6 };
    const V6_IN_V4: Self = Self { inner: Families::V6, outer: Families::V4 };
    const V4_IN_V6: Self = Self { inner: Families::V4, outer: Families::V6 };

    /// What the containers need of a network: both families, where theirs is not the underlay's.
    pub(crate) fn overlay(self) -> Families {
        if self.inner == self.outer { self.inner } else { Families::Dual }
    }
}

impl Subject {
    const fn new(name: &'static str, path: Path, masquerade: bool) -> Self {
        Self { name, path, masquerade, ip: Ip::V4 }
    }

    const fn with(name: &'static str, path: Path, ip: Ip) -> Self {
        Self { name, path, masquerade: false, ip }
    }

    /// Whether there is IPv6 in it.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.ip != Ip::V4
    }
}

/// Plain routing, measured a second time: what differs between the two is noise.
pub(crate) const AGAIN: &str = "plain-again";

/// Arguments of our agent.
const FAST: &[&str] = &[];
const SLOW: &[&str] = &["--fast-path", "off"];
const FAST_MASQUERADE: &[&str] = &["--ip-masq"];
const SLOW_MASQUERADE: &[&str] = &["--fast-path", "off", "--ip-masq"];

/// All of them, in the order of measurement. The two that are the same stand far apart. `6in4` is IPv6 over an IPv4 underlay.
pub(crate) const SUBJECTS: [Subject; 23] = [
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
    Subject::with("plain+6", Path::Plain, Ip::V6),
    Subject::with("bare+6", Path::Bare, Ip::V6),
    Subject::with("kernel-vxlan+6in4", Path::KernelVxlan, Ip::V6_IN_V4),
    Subject::with("overlay-vxlan+6in4", Path::Overlay(Backend::Vxlan, FAST), Ip::V6_IN_V4),
    Subject::with("kernel-vxlan+4in6", Path::KernelVxlan, Ip::V4_IN_V6),
    Subject::with("overlay-vxlan+4in6", Path::Overlay(Backend::Vxlan, FAST), Ip::V4_IN_V6),
    Subject::with("kernel-vxlan+6in6", Path::KernelVxlan, Ip::V6),
    Subject::with("overlay-vxlan+6in6", Path::Overlay(Backend::Vxlan, FAST), Ip::V6),
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
    /// The same with IPv4 inside and outside.
    Ipv4,
}

impl Reference {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::KernelVxlan, Self::Plain, Self::Bare, Self::Ipv4];

    /// What `subject` is compared with: like with like, so with masquerading what masquerades too, and IPv6 with IPv6;
    /// `None` for that which is all IPv4 already.
    pub(crate) fn of(self, subject: &Subject) -> Option<&'static Subject> {
        let Subject { path, masquerade, ip, .. } = *subject;
        let plain = Ip { inner: ip.inner, outer: ip.inner };
        let (path, masquerade, ip) = match self {
            Self::KernelVxlan => (Path::KernelVxlan, masquerade, ip),
            Self::Plain => (Path::Plain, masquerade, plain),
            Self::Bare => (Path::Bare, false, plain),
            Self::Ipv4 if subject.has_ipv6() => (path, masquerade, Ip::V4),
            Self::Ipv4 => return None,
        };
        SUBJECTS.iter().find(|other| (other.path, other.masquerade, other.ip) == (path, masquerade, ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_all_references_and_no_name_is_given_twice() {
        for subject in &SUBJECTS {
            assert_eq!(SUBJECTS.iter().filter(|other| other.name == subject.name).count(), 1, "{}", subject.name);
            for reference in Reference::ALL {
                let found = reference.of(subject).is_some();
                assert_eq!(
                    found,
                    reference != Reference::Ipv4 || subject.has_ipv6(),
                    "{}: {reference:?}",
                    subject.name
                );
            }
        }
    }

    #[test]
    fn ipv6_is_compared_with_ipv6_and_with_the_same_of_ipv4() {
        let subject = SUBJECTS.iter().find(|subject| subject.name == "overlay-vxlan+6in4").unwrap();
        let names = Reference::ALL.map(|reference| reference.of(subject).unwrap().name);
        assert_eq!(names, ["kernel-vxlan+6in4", "plain+6", "bare+6", "overlay-vxlan"]);
    }
}
