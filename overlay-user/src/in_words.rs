//! What there is of a thing for either address family, in words.

use std::fmt::Display;

/// The items with "and" between them.
#[must_use]
pub fn joined(items: impl IntoIterator<Item: Display>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" and ")
}

/// What there is for IPv4 and the same for IPv6.
pub(crate) fn texts(ipv4: Option<impl ToString>, ipv6: Option<impl ToString>) -> Vec<String> {
    [ipv4.map(|of| of.to_string()), ipv6.map(|of| of.to_string())].into_iter().flatten().collect()
}
