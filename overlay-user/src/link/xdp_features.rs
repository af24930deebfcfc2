//! What a driver can do in XDP, as the kernel's netlink family `netdev` tells it.

use futures::StreamExt as _;
use genetlink::GenetlinkError;
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rtnetlink::packet_core::{
    DecodeError, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla, NlaBuffer, NlasIterator,
    ParseableParametrized,
};

const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: aborted, drop, pass and tx, which is all that `xdp_decap` returns.
const BASIC: u64 = 1;

/// Why the kernel did not say.
#[derive(Debug, thiserror::Error)]
pub enum XdpFeaturesError {
    /// No socket could be had.
    #[error("open a generic netlink socket")]
    Socket(#[from] std::io::Error),
    /// There is no such family, as before Linux 6.3.
    #[error("ask the netlink family netdev")]
    Family(#[from] GenetlinkError),
    /// The kernel has no answer.
    #[error("ask the netlink family netdev about interface {0}: no answer")]
    NoAnswer(u32),
}

/// Whether the driver of interface `ifindex` runs XDP programs itself.
///
/// # Errors
/// When the kernel does not say.
pub async fn has_native_xdp(ifindex: u32) -> Result<bool, XdpFeaturesError> {
    let (connection, mut handle, _) = genetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(DevGet::Ask { ifindex }));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(request).await?;
    let answer = answers.next().await;
    connection.abort();
    match answer {
        Some(Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(GenlMessage { payload: DevGet::Answer { features }, .. }),
            ..
        })) => Ok(features & BASIC != 0),
        _ => Err(XdpFeaturesError::NoAnswer(ifindex)),
    }
}

/// The command `dev-get`.
#[derive(Debug)]
enum DevGet {
    Ask { ifindex: u32 },
    Answer { features: u64 },
}

impl GenlFamily for DevGet {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

/// The one attribute of a request.
struct Ifindex(u32);

impl Nla for Ifindex {
    fn value_len(&self) -> usize {
        size_of::<u32>()
    }

    fn kind(&self) -> u16 {
        IFINDEX
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0.to_ne_bytes());
    }
}

impl Emitable for DevGet {
    fn buffer_len(&self) -> usize {
        match self {
            Self::Ask { ifindex } => Ifindex(*ifindex).buffer_len(),
            Self::Answer { .. } => 0,
        }
    }

    fn emit(&self, buffer: &mut [u8]) {
        if let Self::Ask { ifindex } = self {
            Ifindex(*ifindex).emit(buffer);
        }
    }
}

impl ParseableParametrized<[u8], GenlHeader> for DevGet {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut features = 0;
        for attribute in NlasIterator::new(buffer) {
            let attribute: NlaBuffer<_> = attribute?;
            if attribute.kind() == XDP_FEATURES
                && let Ok(value) = attribute.value().try_into()
            {
                features = u64::from_ne_bytes(value);
            }
        }
        Ok(Self::Answer { features })
    }
}
