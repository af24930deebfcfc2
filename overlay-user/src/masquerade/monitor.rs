//! The kernel's notices of changes in nftables' rules.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::RulesError;
use super::family::Family;
use super::forward::HOOKS;

/// Multicast group of nftables' notices.
const NFNLGRP_NFTABLES: u32 = 7;
/// Upper byte of the message type of nftables' messages.
const NFNL_SUBSYS_NFTABLES: u8 = 10;
/// NEW and DEL of table, chain and rule: lower byte of the message type.
const MESSAGES: [u8; 6] = [0, 2, 3, 5, 6, 8];
const NETLINK_HEADER: usize = 16;
const NFGEN_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE` are the same number.
const TABLE_NAME: u16 = 1;

/// A socket that receives the notices.
pub(super) struct Monitor {
    socket: TokioSocket,
    table: String,
    families: Vec<Family>,
}

impl Monitor {
    /// Listens to changes of the table `table` and of iptables' tables that we have rules in, in `families`.
    pub(super) fn new(table: &str, families: Vec<Family>) -> Result<Self, RulesError> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            socket.socket_mut().add_membership(NFNLGRP_NFTABLES)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(RulesError::Monitor)?, table: table.to_owned(), families })
    }

    /// Returns after a change. Dropping the future loses no notice that has not been read.
    pub(super) async fn wait(&mut self) -> Result<(), RulesError> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((notice, _)) if self.concerns_us(&notice) => return Ok(()),
                Ok(_) => {}
                // More notices than the socket could hold: ours may have been among them.
                Err(error) if is(&error, Errno::ENOBUFS) => return Ok(()),
                Err(error) => return Err(RulesError::Monitor(error)),
            }
        }
    }

    /// Throws away what has come in meanwhile.
    pub(super) fn drain(&mut self) {
        while self.socket.socket_ref().recv_from_full().is_ok() {}
    }

    fn concerns_us(&self, notice: &[u8]) -> bool {
        tables(notice, &self.families)
            .any(|table| table == self.table.as_bytes() || HOOKS.iter().any(|hook| table == hook.table.as_bytes()))
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The tables of `families` that the messages in `datagram` are about.
fn tables<'a>(datagram: &'a [u8], families: &[Family]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?);
        let length = usize::try_from(length).ok().filter(|length| (NETLINK_HEADER..=rest.len()).contains(length))?;
        let message = &rest[..length];
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(table(message, families))
    })
    .flatten()
}

/// The table of one of `families` that one message is about.
fn table<'a>(message: &'a [u8], families: &[Family]) -> Option<&'a [u8]> {
    let [kind, subsystem] = u16::from_ne_bytes([*message.get(4)?, *message.get(5)?]).to_le_bytes();
    let family = *message.get(NETLINK_HEADER)?;
    if subsystem != NFNL_SUBSYS_NFTABLES
        || !MESSAGES.contains(&kind)
        || !families.iter().any(|wanted| wanted.number() == family)
    {
        return None;
    }
    let mut attributes = message.get(NETLINK_HEADER + NFGEN_HEADER..)?;
    loop {
        let [l0, l1, t0, t1] = *attributes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if u16::from_ne_bytes([t0, t1]) == TABLE_NAME {
            return Some(value.strip_suffix(&[0]).unwrap_or(value));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subsystem: u8, kind: u8, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        for (attribute, value) in attributes {
            let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap();
            body.extend(length.to_ne_bytes());
            body.extend(attribute.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(NETLINK_HEADER + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(u16::from_le_bytes([kind, subsystem]).to_ne_bytes());
        message.resize(NETLINK_HEADER, 0);
        message.extend(body);
        message
    }

    #[test]
    fn tables_are_found_in_all_messages_of_a_datagram() {
        let datagram = [
            message(10, 6, 2, &[(2, b"postrouting\0"), (1, b"overlay.1\0")]),
            message(10, 15, 2, &[(1, &[0, 0, 0, 9])]),
            message(10, 2, 10, &[(1, b"another\0")]),
            message(1, 2, 2, &[(1, b"conntrack\0")]),
            message(10, 2, 2, &[(1, b"filter\0")]),
        ]
        .concat();
        let named = |families: &[Family]| tables(&datagram, families).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(named(&[Family::Ipv4]), [b"overlay.1".to_vec(), b"filter".to_vec()]);
        assert_eq!(named(&[Family::Ipv6]), [b"another".to_vec()]);
    }

    #[test]
    fn a_malformed_datagram_names_no_table() {
        let whole = message(10, 2, 2, &[(1, b"filter\0")]);
        for length in 0..whole.len() {
            assert_eq!(tables(&whole[..length], &Family::ALL).count(), 0, "{length} bytes");
        }
        let mut endless = whole.clone();
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(tables(&endless, &Family::ALL).count(), 0);
    }
}
