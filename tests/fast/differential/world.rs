//! Worlds that are equal but for the fast path, and what scripts do there.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use overlay_tests::{
    cluster::{Cluster, Settings},
    netns::Netns,
    node::{Container, Node},
    process::{output, wait_for, wait_until},
    sandbox::isolated,
};

use super::{
    family::{Family, socket_address},
    script::{Expect, Name, Place, Step},
    sockets::Socket,
};
use crate::ground::{self, Forwarded, LIMIT, Way, announce, nft, start_container};

/// The default of `--fast-path-approval`, in seconds.
const APPROVAL: u64 = 2;

/// How long nothing must come where nothing is expected.
const SILENCE: Duration = Duration::from_millis(300);

/// How many words are enough for an approval where none is looked for.
const WARM: u32 = 20;

/// A place of the world and its address.
struct Ground {
    netns: Netns,
    address: IpAddr,
}

struct World<'a> {
    cluster: &'a mut Cluster,
    way: Way,
    fast: bool,
    places: BTreeMap<Place, Ground>,
    sockets: BTreeMap<Name, Socket>,
    /// Containers that are off the network, but live.
    old: Vec<Container>,
    log: Vec<String>,
}

/// Plays `scripts` one after another in a world with a fast path and in one without, and compares what was seen.
pub(super) fn compare(way: Way, scripts: &[(&str, Vec<Step>)]) {
    let play = |fast| {
        let settings = if fast { ground::approving(way, APPROVAL as u32) } else { ground::slow(way) };
        isolated(|| {
            let mut cluster = start(&Settings { nodes: 3, ..settings }, Family::of(way));
            World::new(&mut cluster, way, fast).play(scripts)
        })
    };
    // At the same time: much of it is waiting.
    let (fast, slow) = thread::scope(|scope| {
        let fast = scope.spawn(|| play(true));
        let slow = play(false);
        (fast.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), slow)
    });
    for ((name, script), (fast, slow)) in scripts.iter().zip(fast.iter().zip(&slow)) {
        assert!(fast == slow, "{name}: {script:#?}\nwith a fast path {fast:#?}\nwithout {slow:#?}");
        eprintln!("{name}: {slow:#?}");
    }
}

/// A cluster of which two nodes run and have a container, on the same subnets every time.
fn start(settings: &Settings, family: &Family) -> Cluster {
    let mut cluster = Cluster::new(settings).unwrap();
    cluster.write_config(&settings.network_config()).unwrap();
    for (subnet, node) in family.leases.into_iter().zip(cluster.nodes()) {
        lease(&cluster, &["reserve", subnet, &underlay(node).to_string()]);
    }
    let running = &mut cluster.nodes_mut()[..2];
    running.iter_mut().for_each(|node| node.start_agent().unwrap());
    for node in running.iter_mut() {
        node.wait_ready().unwrap();
        node.add_container().unwrap();
    }
    for (node, other, number) in [(&running[0], &running[1], 1), (&running[1], &running[0], 0)] {
        wait_for_route(node, family.subnet(number), underlay(other));
        node.wait_container().unwrap();
    }
    cluster
}

fn lease(cluster: &Cluster, arguments: &[&str]) {
    let mut command = cluster.nodes()[0].overlay();
    output(command.arg("lease").args(arguments).args(cluster.datastore_arguments())).unwrap();
}

/// The address of a node on an underlay of one family.
fn underlay(node: &Node) -> IpAddr {
    node.addresses()[0]
}

fn wait_for_route(node: &Node, subnet: IpAddr, next_hop: IpAddr) {
    let known = || node.counters().route(subnet).unwrap().is_some_and(|route| route.next_hop().ip() == next_hop);
    wait_until("a route to the other subnet", LIMIT, known).unwrap();
}

impl<'a> World<'a> {
    fn new(cluster: &'a mut Cluster, way: Way, fast: bool) -> Self {
        let mut places = BTreeMap::new();
        for (node, place) in cluster.nodes().iter().zip([Place::One, Place::Two, Place::Three]) {
            places.insert(place, Ground { netns: node.netns().clone(), address: underlay(node) });
        }
        let mut add = |place, container: &Container| {
            places.insert(place, Ground { netns: container.netns.clone(), address: container.address() });
        };
        let [one, two, _] = cluster.nodes() else { panic!("three nodes") };
        add(Place::Here, one.container());
        add(Place::There, two.container());
        for (place, node, veth, host) in
            [(Place::Here2, one, "second", 3), (Place::Here3, one, "third", 4), (Place::There2, two, "second", 3)]
        {
            let container = start_container(node, veth, host);
            announce(&container, node);
            add(place, &container);
        }
        Self { cluster, way, fast, places, sockets: BTreeMap::new(), old: Vec::new(), log: Vec::new() }
    }

    fn play(mut self, scripts: &[(&str, Vec<Step>)]) -> Vec<Vec<String>> {
        let mut play = |(name, script): &(&str, Vec<Step>)| {
            eprintln!("{name}, {}", if self.fast { "with a fast path" } else { "without" });
            for step in script {
                self.perform(step.clone());
            }
            self.sockets.clear();
            std::mem::take(&mut self.log)
        };
        scripts.iter().map(&mut play).collect()
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Udp(name, place, port) => self.open(name, place, |address| Socket::udp(address, port)),
            Step::Listen(name, place, port) => self.open(name, place, |address| Socket::listener(address, port)),
            Step::Connect(name, place, port, (to, to_port)) => {
                let to = socket_address((to, to_port));
                self.open(name, place, |address| Socket::connecting(SocketAddr::new(address, port), to));
            }
            Step::Answered(name, expect) => self.await_answer(name, expect),
            Step::Accept(listener, name) => {
                let (socket, from) = self.socket(listener).accept().unwrap();
                self.note(name, format!("accepted from {from}"));
                self.sockets.insert(name, socket);
            }
            Step::Say(name, to, word) => {
                if let Err(error) = self.socket(name).say(to.map(socket_address), word.as_bytes()) {
                    self.note(name, format!("cannot say {word}: {:?}", error.kind()));
                }
            }
            Step::SayMuch(name, length) => {
                let said = self.socket(name).say(None, &vec![b'x'; length]).map_err(|error| error.kind());
                self.note(name, format!("says {length} bytes: {said:?}"));
            }
            Step::Hear(name, expect) => self.hear(name, if expect == Expect::Something { LIMIT } else { SILENCE }),
            Step::HearIfAny(name) => self.hear(name, Duration::from_millis(1)),
            Step::ConnectUdp(name) => self.socket(name).connect().unwrap(),
            Step::Engage(near, far, nodes) => self.engage([near, far], nodes),
            Step::Talk(near, far, count, nodes) => self.talk([near, far], count, nodes),
            Step::TalkFor(near, far, time) => {
                let start = Instant::now();
                while start.elapsed() < time {
                    assert!(self.exchange([near, far], LIMIT), "{near} and {far} after {:?}", start.elapsed());
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Step::TalkUntilSilent(near, far) => self.talk_until_silent(near, far),
            Step::TalkUntilRefused(name) => self.talk_until_refused(name),
            Step::TalkUntilHeard(near, far) => {
                wait_until("a word to arrive", LIMIT, || self.exchange([near, far], SILENCE)).unwrap();
            }
            Step::Idle(time) => thread::sleep(time),
            Step::Shutdown(name) => self.socket(name).stream().shutdown(std::net::Shutdown::Write).unwrap(),
            Step::Close(names) => self.sockets.retain(|name, _| !names.contains(name)),
            Step::Reset(name) => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(self.socket(name).stream(), sockopt::Linger, &linger).unwrap();
                self.sockets.remove(name);
            }
            Step::Nft(place, rules) => drop(nft(self.node(place), &rules)),
            Step::Ip(place, arguments) => drop(self.places[&place].netns.ip(arguments).unwrap()),
            Step::Sysctl(place, name, value) => {
                self.places[&place].netns.sysctl(&format!("net.netfilter.{name}"), value).unwrap();
            }
            Step::AwaitMtu(place, underlay) => self.await_mtu(place, underlay),
            Step::Conntrack(place, port) => self.note_conntrack(place, port),
            Step::Replace => self.replace(),
            Step::HandOver => self.hand_over(),
        }
    }

    fn note(&mut self, who: &str, what: impl std::fmt::Display) {
        self.log.push(format!("{who}: {what}"));
    }

    fn node(&self, place: Place) -> &Node {
        &self.cluster.nodes()[place as usize]
    }

    fn socket(&mut self, name: Name) -> &mut Socket {
        self.sockets.get_mut(name).unwrap_or_else(|| panic!("no socket {name}"))
    }

    fn open(&mut self, name: Name, place: Place, open: impl Fn(IpAddr) -> io::Result<Socket> + Sync) {
        let ground = &self.places[&place];
        // What another test starts holds our sockets for a moment, and the last acknowledgement of an earlier connection on
        // these ports may be on its way.
        let open = || match ground.netns.run(|| open(ground.address)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {
                Ok(None)
            }
            other => Ok(Some(other?)),
        };
        let socket = wait_for(&format!("an address and port for {name}"), LIMIT, open).unwrap();
        self.sockets.insert(name, socket);
    }

    fn await_answer(&mut self, name: Name, expect: Expect) {
        let stream = self.socket(name).stream();
        let (start, limit) = (Instant::now(), if expect == Expect::Something { LIMIT } else { SILENCE });
        let answer = loop {
            if stream.peer_addr().is_ok() {
                stream.set_nonblocking(false).unwrap();
                break "connected".to_owned();
            }
            if let Some(error) = stream.take_error().unwrap() {
                break format!("{:?}", error.kind());
            }
            if start.elapsed() > limit {
                break "no answer".to_owned();
            }
            thread::sleep(Duration::from_millis(2));
        };
        self.note(name, answer);
    }

    fn hear(&mut self, name: Name, limit: Duration) {
        let heard = match self.socket(name).hear(limit) {
            Ok((word, from)) => format!("hears {:?} from {from}", shown(&word)),
            Err(error) => format!("hears {:?}", error.kind()),
        };
        self.note(name, heard);
    }

    fn talk_until_refused(&mut self, name: Name) {
        // The socket that is closed may be held for a moment by what another test starts.
        let refused = || {
            let told =
                self.socket(name).say(None, b"anybody?").and_then(|()| self.socket(name).hear(SILENCE).map(drop));
            told.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        wait_until("a refusal", LIMIT, refused).unwrap();
        self.note(name, "is refused");
    }

    fn await_mtu(&mut self, place: Place, underlay: u32) {
        let (node, mtu) = (self.node(place), format!("mtu {} ", underlay - self.way.overhead()));
        let show = format!("link show dev {}", self.way.device());
        let followed = || node.netns().ip(&show).unwrap().contains(&mtu);
        wait_until("the overlay device's MTU", LIMIT, followed).unwrap();
    }

    /// One word there and one back.
    fn exchange(&mut self, [near, far]: [Name; 2], limit: Duration) -> bool {
        let mut pass = |from: Name, to: Name| {
            let said = self.socket(from).say(None, b"word");
            said.and_then(|()| self.socket(to).hear(limit)).is_ok_and(|(word, _)| word == b"word")
        };
        pass(near, far) && pass(far, near)
    }

    fn engage(&mut self, names: [Name; 2], nodes: &[Place]) {
        for number in 0..WARM {
            assert!(self.exchange(names, LIMIT), "word {number} between {names:?}");
        }
        if !self.fast {
            return;
        }
        let protocol = self.socket(names[0]).protocol();
        // What the other side is called depends on where translation takes place: one end is enough here.
        let ends = names.map(|name| self.socket(name).local());
        let carries = |node: &Node| {
            ground::carries(node, |flow, between| flow == protocol && between.iter().any(|end| ends.contains(end)))
        };
        let approved = || self.exchange(names, LIMIT) && nodes.iter().all(|&node| carries(self.node(node)));
        wait_until(&format!("{names:?} to be approved on {nodes:?}"), LIMIT, approved).unwrap();
        assert!(self.exchange(names, LIMIT));
    }

    fn talk(&mut self, names: [Name; 2], count: u32, nodes: &[Place]) {
        let places = [Place::One, Place::Two];
        let count_at = |world: &Self| places.map(|place| Forwarded::continued(world.node(place)).packets());
        let before = count_at(self);
        let arrived = (0..count).filter(|_| self.exchange(names, LIMIT)).count();
        self.note(names[0], format!("exchanges {arrived} of {count} words with {}", names[1]));
        for ((place, before), after) in places.into_iter().zip(before).zip(count_at(self)) {
            let seen = after - before;
            // The last word may be heard before it is counted.
            let all = seen + 1 >= u64::from(2 * count);
            if !nodes.contains(&place) {
                // Equal in both worlds: this one must not skip it.
                self.note(names[0], format!("is seen by netfilter of {place:?}: {all}"));
            } else if self.fast {
                assert!(
                    seen < u64::from(count) / 2,
                    "{names:?}: netfilter of {place:?} saw {seen} packets of {count} words"
                );
            } else {
                assert!(all, "{names:?}: netfilter of {place:?} saw only {seen} packets of {count} words");
            }
        }
    }

    fn talk_until_silent(&mut self, near: Name, far: Name) {
        const PACE: Duration = Duration::from_millis(20);
        let (start, mut last) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < last + SILENCE {
            // A refusal that ICMP has brought is silence as well.
            self.socket(near).say(None, b"anybody?").ok();
            if self.socket(far).hear(PACE).is_ok() {
                last = start.elapsed();
            }
        }
        let limit = Duration::from_secs(APPROVAL + 1);
        assert!(last < limit, "{far} heard {near} for {last:?}, longer than an approval lasts");
        self.note(far, format!("does not hear {near} any more"));
    }

    fn note_conntrack(&mut self, place: Place, port: u16) {
        let table = self.places[&place].netns.run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack")).unwrap();
        let port = format!("port={port} ");
        // Without what depends on time or on who is looking.
        let stable = |line: &str| {
            let words = line.split_whitespace().enumerate();
            let kept = words.filter(|(at, word)| *at != 4 && !word.starts_with("use=")).map(|(_, word)| word);
            kept.collect::<Vec<_>>().join(" ")
        };
        let mut entries: Vec<_> = table.lines().filter(|line| line.contains(&port)).map(stable).collect();
        entries.sort();
        self.note("conntrack", entries.join("; "));
    }

    fn replace(&mut self) {
        let two = self.node(Place::Two);
        // The old one lives on with the address, off the network, so that its sockets show what still comes to them.
        two.netns().ip("link set dev container nomaster").unwrap();
        let new = start_container(two, "replacement", 2);
        announce(&new, two);
        let old = self.places.insert(Place::There, Ground { address: new.address(), netns: new.netns }).unwrap();
        self.old.push(Container { netns: old.netns, addresses: vec![old.address] });
    }

    fn hand_over(&mut self) {
        self.node(Place::Two).netns().ip("link delete dev container").ok();
        self.node(Place::Two).netns().ip("link delete dev replacement").ok();
        self.cluster.nodes_mut()[1].stop_agent().unwrap();
        let (family, three) = (Family::of(self.way), underlay(self.node(Place::Three)));
        lease(self.cluster, &["release", family.leases[1]]);
        lease(self.cluster, &["reserve", family.leases[1], &three.to_string()]);
        let node = &mut self.cluster.nodes_mut()[2];
        node.start_agent().unwrap();
        node.wait_ready().unwrap();
        let new = node.add_container().unwrap().clone();
        wait_for_route(self.node(Place::One), family.subnet(1), three);
        wait_for_route(self.node(Place::Three), family.subnet(0), underlay(self.node(Place::One)));
        self.places.insert(Place::There, Ground { address: new.address(), netns: new.netns });
    }
}

/// A word, or how long it is.
fn shown(word: &[u8]) -> String {
    if word.len() > 64 { format!("{} bytes", word.len()) } else { String::from_utf8_lossy(word).into_owned() }
}
