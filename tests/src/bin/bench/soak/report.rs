//! The report of a soak as `soak.json` holds it.

use anyhow::Result;
use overlay_tests::{chaos::Blows, steady::Carried};
use serde::Serialize;

use super::{churn::ChurnCount, flaps::Side, memory::Sample};

/// All of it. Times are seconds since the start of the traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SoakReport {
    /// What is wrong, a line each.
    pub(crate) problems: Vec<String>,
    /// Where chance began.
    pub(crate) seed: u64,
    /// How long everything happened together.
    pub(crate) seconds: f64,
    /// What was done to agents and etcd.
    pub(crate) blows: Blows,
    /// Containers that came and went.
    pub(crate) containers: ChurnCount,
    /// Each time an underlay interface was down.
    pub(crate) flaps: Vec<FlapOutcome>,
    /// The packets from each node's container to each other's.
    pub(crate) pairs: Vec<PairOutcome>,
    /// The TCP connection that was there all the time.
    pub(crate) tcp: TcpOutcome,
    /// What the agent took that nobody struck.
    pub(crate) memory: Vec<Sample>,
    /// What there was before and after.
    pub(crate) counts: Vec<Count>,
    /// The first line in which a node is not as it was, if there is one.
    pub(crate) difference: Option<String>,
    /// What each node's programs dropped, by reason: news, not judged.
    pub(crate) drops: Vec<String>,
}

/// What came of a flap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FlapOutcome {
    /// The node whose underlay interface it was.
    pub(crate) node: String,
    /// Which end of the cable.
    pub(crate) side: Side,
    /// When it went down.
    pub(crate) down: f64,
    /// When it was up again.
    pub(crate) up: f64,
    /// How many packets were lost by it.
    pub(crate) lost: u32,
    /// How long after it was up the last of those was sent.
    pub(crate) recovery: f64,
}

/// What came of the packets from one container to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PairOutcome {
    /// The sender's node.
    pub(crate) from: String,
    /// The receiver's node.
    pub(crate) to: String,
    /// Packets sent.
    pub(crate) sent: u32,
    /// Packets that arrived more than once.
    pub(crate) doubled: u32,
    /// Packets lost by flaps.
    pub(crate) lost_by_flaps: u32,
    /// When packets were sent that were lost by nothing that we know.
    pub(crate) lost_for_no_reason: Vec<f64>,
}

/// What came of the TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum TcpOutcome {
    /// All bytes arrived.
    #[serde(rename = "carried")]
    Carried {
        /// How many.
        bytes: u64,
        /// Segments that were sent again, by flaps.
        retransmitted: u32,
    },
    /// It broke.
    #[serde(rename = "broken")]
    Broken(String),
}

impl From<Result<Carried>> for TcpOutcome {
    fn from(carried: Result<Carried>) -> Self {
        match carried {
            Ok(Carried { bytes, retransmitted }) => Self::Carried { bytes, retransmitted },
            Err(error) => Self::Broken(format!("{error:#}")),
        }
    }
}

/// How many of something there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    /// Of what, and on which node.
    pub(crate) what: String,
    /// At the start.
    pub(crate) before: u64,
    /// At the end.
    pub(crate) after: u64,
}
