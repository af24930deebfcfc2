//! [`Paced`]: numbered UDP packets between all containers at a steady pace, and which of them were lost.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, UdpSocket},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    prctl,
    socket::{setsockopt, sockopt},
};

use crate::node::Container;

/// The port at which every container listens.
const PORT: u16 = 7007;
/// Room for what arrives while a receiver gets no CPU: a packet that waits is not lost.
const ROOM: usize = 32 << 20;
/// How long the last packets may take.
const LAST: Duration = Duration::from_secs(5);
/// How often a receiver looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// Packets between containers, under way until [`stop`](Self::stop).
#[derive(Debug)]
pub struct Paced {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Result<Sent>>>,
    receivers: Vec<JoinHandle<Result<Received>>>,
    start: Instant,
}

/// What became of the packets from one container to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The sender's address.
    pub from: Ipv4Addr,
    /// The receiver's address.
    pub to: Ipv4Addr,
    /// Packets sent.
    pub sent: u32,
    /// Packets that arrived, each counted once.
    pub received: u32,
    /// Packets that arrived once more.
    pub doubled: u32,
    /// When the lost ones were sent, since the start.
    pub lost: Vec<Duration>,
}

/// When each packet was sent, by receiver; its number is its place.
type Sent = (Ipv4Addr, BTreeMap<Ipv4Addr, Vec<Duration>>);
/// How often each packet arrived, by sender; its number is its place.
type Received = (Ipv4Addr, BTreeMap<Ipv4Addr, Vec<u8>>);

impl Paced {
    /// Lets every container send a packet to every other once per `interval`.
    ///
    /// # Errors
    ///
    /// When a socket cannot be had.
    pub fn start(containers: &[Container], interval: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let bind = |container: &Container| -> Result<UdpSocket> {
            let socket = container.netns.run(|| UdpSocket::bind((container.v4(), PORT)));
            let socket = socket.with_context(|| format!("listen on {}", container.v4()))?;
            setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        };
        let sockets = containers.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let mut paced = Self { stop, senders: Vec::new(), receivers: Vec::new(), start };
        for (container, socket) in containers.iter().zip(sockets) {
            let own = container.v4();
            let others: Vec<_> = containers.iter().map(Container::v4).filter(|&other| other != own).collect();
            let (sending, receiving) = (socket.try_clone()?, socket);
            let (stop, over) = (Arc::clone(&paced.stop), Arc::clone(&paced.stop));
            paced.senders.push(thread::spawn(move || Ok((own, send(&sending, &others, interval, start, &stop)?))));
            paced.receivers.push(thread::spawn(move || Ok((own, receive(&receiving, &over)?))));
        }
        Ok(paced)
    }

    /// How long it has been under way.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Stops sending, waits for the last packets, and says what became of all.
    ///
    /// # Errors
    ///
    /// When a socket failed, or something arrived that nobody sent.
    pub fn stop(self) -> Result<Vec<Pair>> {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.senders.into_iter().map(join).collect::<Result<Vec<Sent>>>()?;
        let received = self.receivers.into_iter().map(join).collect::<Result<BTreeMap<_, _>>>()?;
        let mut pairs = Vec::new();
        for (from, packets) in sent {
            for (to, times) in packets {
                let arrived = received.get(&to).and_then(|senders| senders.get(&from)).cloned().unwrap_or_default();
                pairs.push(pair(from, to, &times, &arrived)?);
            }
        }
        Ok(pairs)
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn pair(from: Ipv4Addr, to: Ipv4Addr, times: &[Duration], arrived: &[u8]) -> Result<Pair> {
    ensure!(arrived.len() <= times.len(), "packet {} arrived from {from} at {to}, never sent", arrived.len() - 1);
    let count = |number: usize| arrived.get(number).copied().unwrap_or(0);
    let lost: Vec<_> = (0..times.len()).filter(|&number| count(number) == 0).map(|number| times[number]).collect();
    let doubled = arrived.iter().map(|&count| u32::from(count.saturating_sub(1))).sum();
    let sent = u32::try_from(times.len())?;
    Ok(Pair { from, to, sent, received: sent - u32::try_from(lost.len())?, doubled, lost })
}

/// Sends at the times that the pace wants; one that was missed is made up for at once.
fn send(
    socket: &UdpSocket,
    to: &[Ipv4Addr],
    interval: Duration,
    start: Instant,
    stop: &AtomicBool,
) -> Result<BTreeMap<Ipv4Addr, Vec<Duration>>> {
    // Otherwise the kernel wakes a thread some 50 us late, to wake others with it.
    prctl::set_timerslack(1)?;
    let mut sent: BTreeMap<Ipv4Addr, Vec<Duration>> = to.iter().map(|&to| (to, Vec::new())).collect();
    for number in 0_u32.. {
        thread::sleep((start + interval * number).saturating_duration_since(Instant::now()));
        if stop.load(Ordering::SeqCst) {
            break;
        }
        for (&to, times) in &mut sent {
            times.push(start.elapsed());
            socket.send_to(&number.to_be_bytes(), (to, PORT)).with_context(|| format!("send to {to}"))?;
        }
    }
    Ok(sent)
}

/// Counts what arrives, until nothing has for [`LAST`] after the end.
fn receive(socket: &UdpSocket, over: &AtomicBool) -> Result<BTreeMap<Ipv4Addr, Vec<u8>>> {
    let mut received: BTreeMap<Ipv4Addr, Vec<u8>> = BTreeMap::new();
    let mut last = Instant::now();
    loop {
        let mut packet = [0; 4];
        match socket.recv_from(&mut packet) {
            Ok((_, from)) => {
                last = Instant::now();
                let std::net::IpAddr::V4(from) = from.ip() else { continue };
                let (counts, number) = (received.entry(from).or_default(), u32::from_be_bytes(packet) as usize);
                counts.resize(counts.len().max(number + 1), 0);
                counts[number] = counts[number].saturating_add(1);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                // The quiet before the end does not count.
                match over.load(Ordering::SeqCst) {
                    true if last.elapsed() >= LAST => return Ok(received),
                    true => {}
                    false => last = Instant::now(),
                }
            }
            Err(error) => return Err(error).context("receive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    fn two() -> [Container; 2] {
        let (one, two) = (Netns::new().unwrap(), Netns::new().unwrap());
        one.veth("a", &two, "a", 1500).unwrap();
        one.ip("address add 192.0.2.1/24 dev a").unwrap();
        two.ip("address add 192.0.2.2/24 dev a").unwrap();
        let container = |netns, last| Container { netns, addresses: vec![[192, 0, 2, last].into()] };
        [container(one, 1), container(two, 2)]
    }

    #[test]
    fn every_packet_is_accounted_for() {
        let containers = two();
        let paced = Paced::start(&containers, Duration::from_millis(2)).unwrap();
        let way = &containers[0].netns;
        crate::process::wait_until("some packets", Duration::from_secs(10), || paced.elapsed().as_millis() > 100)
            .unwrap();
        // One way is cut, at the receiver, so that the other goes on.
        way.ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:01 dev a").unwrap();
        let cut = paced.elapsed();
        crate::process::wait_until("more", Duration::from_secs(10), || paced.elapsed() > cut * 2).unwrap();
        let pairs = paced.stop().unwrap();
        assert_eq!(pairs.len(), 2);
        let (there, back) = (&pairs[0], &pairs[1]);
        assert!(there.sent > 20 && !there.lost.is_empty() && there.received > 10, "{there:?}");
        assert_eq!(there.received as usize + there.lost.len(), there.sent as usize);
        assert!(there.lost[0] + Duration::from_millis(500) > cut, "{there:?}");
        assert_eq!((back.lost.len(), back.sent, back.doubled), (0, back.received, 0));
    }
}
