//! What a link message says, in the terms of this module.

use rtnetlink::packet_route::link::{InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::LinkError;

/// The interface called `wanted`.
pub(super) fn by_name<'a>(links: &'a [LinkMessage], wanted: &str) -> Option<&'a LinkMessage> {
    links.iter().find(|link| name(link) == wanted)
}

/// The name of an interface.
pub(super) fn name(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// The Ethernet address of an interface.
pub(super) fn mac(link: &LinkMessage) -> Option<[u8; 6]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

fn infos(link: &LinkMessage) -> &[LinkInfo] {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    });
    infos.unwrap_or_default()
}

/// The MTU of an interface in bytes.
pub(super) fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The kind of a virtual interface.
pub(super) fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    infos(link).iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None })
}

/// What is particular to the kind of a virtual interface.
pub(super) fn data(link: &LinkMessage) -> Option<&InfoData> {
    infos(link).iter().find_map(|info| if let LinkInfo::Data(data) = info { Some(data) } else { None })
}

/// The refusal of an interface that has our name and is not ours.
pub(super) fn foreign(link: &LinkMessage) -> LinkError {
    let kind = kind(link).map_or_else(|| "hardware".to_owned(), ToString::to_string);
    LinkError::Foreign { name: name(link).to_owned(), kind }
}
