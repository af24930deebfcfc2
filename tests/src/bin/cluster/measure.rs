//! What is measured of a running cluster: whether every pair talks, how fast, and whether every packet was counted.

use std::{net::IpAddr, panic, thread, time::Duration};

use anyhow::Result;
use overlay_tests::{
    cluster::Cluster,
    node::Node,
    process::wait_until,
    traffic::{self, Flow, Pings, Stream},
};

/// Pings from each container to each other.
const PINGS: u32 = 5;

/// How many series of pings run at once.
const AT_ONCE: usize = 128;

/// How long all TCP streams together may last, and the least and the most that one does.
const STREAMS: Duration = Duration::from_secs(4);
const STREAM: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));

/// How long packets may be under way before they count as lost.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Packets that the maps counted in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Encapsulated at the source node towards the destination's subnet.
    pub(crate) encap: u64,
    /// Decapsulated at the destination node from the source's subnet.
    pub(crate) decap: u64,
}

/// What came of one ordered pair of containers over one address family.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The node of the container that pings and sends.
    pub(crate) from: String,
    /// The node of the container that answers and receives.
    pub(crate) to: String,
    /// Where the second container was reached.
    pub(crate) address: IpAddr,
    /// The pings.
    pub(crate) pings: Pings,
    /// The packets counted after the pings of all pairs.
    pub(crate) after_pings: Counted,
    /// The TCP stream, or why there was none.
    pub(crate) stream: Result<Stream>,
    /// The packets counted after everything.
    pub(crate) after_all: Counted,
}

impl Pair {
    /// The packets that the pings of both directions put on this one's way: its requests, and replies to the other's.
    pub(crate) const EXPECTED: u64 = 2 * PINGS as u64;

    /// What is wrong with the pair, in sentences.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (sent, received) = (self.pings.sent, self.pings.received);
        if (sent, received) != (PINGS, PINGS) {
            problems.push(format!("{received} replies to {PINGS} pings"));
        }
        let (expected, Counted { encap, decap }) = (Self::EXPECTED, self.after_pings);
        if (encap, decap) != (expected, expected) {
            problems.push(format!("{expected} packets of pings counted as {encap} at encap and {decap} at decap"));
        }
        if let Err(error) = &self.stream {
            problems.push(format!("no TCP stream: {error:#}"));
        }
        let Counted { encap, decap } = self.after_all;
        if encap != decap {
            problems.push(format!("{encap} packets counted at encap, {decap} at decap"));
        }
        let name = format!("{} to {} at {}", self.from, self.to, self.address);
        problems.into_iter().map(|problem| format!("{name}: {problem}")).collect()
    }
}

/// Two different nodes of the cluster.
#[derive(Debug, Clone, Copy)]
struct Ends<'a> {
    from: &'a Node,
    to: &'a Node,
    /// Which of the nodes' subnets, one of each address family.
    family: usize,
}

impl Ends<'_> {
    fn counted(self) -> Result<Counted> {
        let [from, to] = [self.from, self.to].map(|node| node.subnet().subnets[self.family].gateway.network());
        Ok(Counted {
            encap: self.from.counters().traffic(to)?.encap_packets,
            decap: self.to.counters().traffic(from)?.decap_packets,
        })
    }

    /// What is counted once `settled` holds, or at last when it never does.
    fn settled(self, settled: impl Fn(Counted) -> bool) -> Result<Counted> {
        // Whether it settled is judged by what is returned.
        let waited = wait_until("the counters", UNDER_WAY, || self.counted().is_ok_and(&settled));
        drop(waited);
        self.counted()
    }

    /// The address of the second container.
    fn address(self) -> IpAddr {
        self.to.container().addresses[self.family]
    }

    fn ping(self) -> Result<Pings> {
        traffic::ping(&self.from.container().netns, self.address(), PINGS)
    }

    fn stream(self, duration: Duration) -> Result<Stream> {
        let (from, to) = (self.from.container(), self.to.container());
        Flow::new(&from.netns, &to.netns, self.address()).tcp_stream(duration)
    }
}

/// Measures every ordered pair of containers over each address family that the overlay has: pings all at once, then TCP
/// streams one after the other.
///
/// # Errors
///
/// When a map cannot be read or `ping` not be run. A pair that does not talk is no error.
pub(crate) fn measure(cluster: &Cluster) -> Result<Vec<Pair>> {
    let nodes = cluster.nodes();
    let others = |from| nodes.iter().filter(move |to: &&Node| to.name() != Node::name(from));
    let pairs = nodes.iter().flat_map(|from| others(from).map(move |to| (from, to)));
    let families = nodes.first().map_or(0, |node| node.subnet().subnets.len());
    let over = |family| pairs.clone().map(move |(from, to)| Ends { from, to, family });
    let pairs: Vec<_> = (0..families).flat_map(over).collect();

    eprintln!("{PINGS} pings from each container to each other ...");
    let pings = ping_all(&pairs)?;
    let expected = Counted { encap: Pair::EXPECTED, decap: Pair::EXPECTED };
    let after_pings = pairs.iter().map(|ends| ends.settled(|counted| counted == expected));
    let after_pings = after_pings.collect::<Result<Vec<_>>>()?;

    let duration = (STREAMS / pairs.len() as u32).clamp(STREAM.0, STREAM.1);
    eprintln!("{} TCP streams, {} ms each ...", pairs.len(), duration.as_millis());
    let streams: Vec<_> = pairs.iter().map(|ends| ends.stream(duration)).collect();
    let after_all = pairs.iter().map(|ends| ends.settled(|counted| counted.encap == counted.decap));
    let after_all = after_all.collect::<Result<Vec<_>>>()?;

    let results = pairs.iter().zip(pings).zip(after_pings).zip(streams).zip(after_all);
    let row = |((((ends, pings), after_pings), stream), after_all): ((((&Ends, _), _), _), _)| Pair {
        from: ends.from.name().to_owned(),
        to: ends.to.name().to_owned(),
        address: ends.address(),
        pings,
        after_pings,
        stream,
        after_all,
    };
    Ok(results.map(row).collect())
}

/// Runs the pings of all pairs, as many at once as is sensible.
fn ping_all(pairs: &[Ends<'_>]) -> Result<Vec<Pings>> {
    let mut all = Vec::new();
    for some in pairs.chunks(AT_ONCE) {
        let results: Vec<_> = thread::scope(|scope| {
            let running: Vec<_> = some.iter().map(|ends| scope.spawn(|| ends.ping())).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|p| panic::resume_unwind(p))).collect()
        });
        for result in results {
            all.push(result?);
        }
    }
    Ok(all)
}
