//! A lease's value: JSON with flannel's fields in flannel's order.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::{Backend, Node, Vtep};
use crate::json::{Object, WrongType, shortened};
use crate::mac::Mac;

/// The largest lease value that is read, in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// A lease's value that does not parse, and why. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is no JSON object.
    #[error("value: {0}")]
    Json(String),
    /// A field that must be there is not.
    #[error("value: {0} is missing")]
    Missing(&'static str),
    /// A field's value breaks a rule.
    #[error("value: {field} {value}: {rule}")]
    Rule {
        /// The field's name.
        field: &'static str,
        /// The value as written, shortened to fit a line.
        value: String,
        /// What the value must be.
        rule: String,
    },
}

impl ValueError {
    fn rule(field: &'static str, value: &impl ToString, rule: impl Into<String>) -> Self {
        Self::Rule { field, value: shortened(&value.to_string()), rule: rule.into() }
    }

    fn wrong_type(field: &'static str, error: &WrongType) -> Self {
        Self::rule(field, &error.found, format!("must be {}", error.wants))
    }
}

/// The value as it is written. The order of the fields is flannel's; some readers compare values as text.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_data: Option<WrittenVtep>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "BackendV6Data")]
    backend_v6_data: Option<WrittenVtep>,
}

#[derive(Serialize)]
struct WrittenVtep {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    mac: String,
}

impl From<Vtep> for WrittenVtep {
    fn from(vtep: Vtep) -> Self {
        Self { vni: vtep.vni, mac: vtep.mac.to_string() }
    }
}

impl Node {
    /// The value of this node's lease, exactly as flannel writes it.
    #[must_use]
    pub fn to_value(&self) -> Vec<u8> {
        let (backend_type, backend_data, backend_v6_data) = match &self.backend {
            // A udp lease of flannel has no BackendType.
            Backend::Udp => (None, None, None),
            Backend::Vxlan { v4, v6 } => (Some("vxlan".to_owned()), v4.map(Into::into), v6.map(Into::into)),
            Backend::Other(name) => (Some(name.clone()), None, None),
        };
        let (public_ip, public_ipv6) = (self.public_ip, self.public_ipv6);
        let written = Written { public_ip, public_ipv6, backend_type, backend_data, backend_v6_data };
        serde_json::to_vec(&written).expect("strings, numbers and addresses are always JSON")
    }

    /// Reads a lease's value; fields that we do not know are ignored.
    ///
    /// # Errors
    /// [`ValueError`] names the first field that breaks a rule, its value and the rule.
    pub fn parse(value: &[u8]) -> Result<Self, ValueError> {
        let object = Object::parse(value, MAX_VALUE).map_err(ValueError::Json)?;
        let public_ipv6 = address::<Ipv6Addr>(&object, "PublicIPv6", "an IPv6 address")?;
        let public_ip = public_ip(&object, public_ipv6.is_some())?;
        if let Some(bad) = public_ipv6.filter(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(ValueError::rule("PublicIPv6", &bad, "must be one node's address"));
        }
        let name = object.string("BackendType").map_err(|error| ValueError::wrong_type("BackendType", &error))?;
        let backend = match name.unwrap_or_default() {
            "" | "udp" => Backend::Udp,
            "vxlan" => vxlan(&object, public_ip, public_ipv6)?,
            other => Backend::Other(shortened(other)),
        };
        Ok(Self { public_ip, public_ipv6, backend })
    }
}

fn public_ip(object: &Object, has_ipv6: bool) -> Result<Ipv4Addr, ValueError> {
    let ip = address::<Ipv4Addr>(object, "PublicIP", "an IPv4 address")?.ok_or(ValueError::Missing("PublicIP"))?;
    // flannel's nodes without IPv4 publish 0.0.0.0.
    let nobody = ip.is_unspecified() && !has_ipv6;
    if nobody || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback() {
        return Err(ValueError::rule("PublicIP", &ip, "must be one node's address"));
    }
    Ok(ip)
}

fn vxlan(object: &Object, ip: Ipv4Addr, ipv6: Option<Ipv6Addr>) -> Result<Backend, ValueError> {
    let v4 = vtep(object, "BackendData")?;
    let v6 = vtep(object, "BackendV6Data")?;
    if v4.is_none() && (!ip.is_unspecified() || ipv6.is_none() || v6.is_none()) {
        return Err(ValueError::Missing("BackendData"));
    }
    Ok(Backend::Vxlan { v4, v6 })
}

fn vtep(object: &Object, field: &'static str) -> Result<Option<Vtep>, ValueError> {
    const MAC: &str = "VtepMAC";
    let Some(data) = object.object(field).map_err(|error| ValueError::wrong_type(field, &error))? else {
        return Ok(None);
    };
    let vni = data.number("VNI").map_err(|error| ValueError::wrong_type("VNI", &error))?.unwrap_or(0);
    let vni = u32::try_from(vni).map_err(|_| ValueError::rule("VNI", &vni, "must have 24 bits"))?;
    let text = data.string(MAC).map_err(|error| ValueError::wrong_type(MAC, &error))?;
    let text = text.ok_or(ValueError::Missing(MAC))?;
    let mac: Mac = text.parse().map_err(|error| ValueError::rule(MAC, &text, format!("{error}")))?;
    if !mac.is_unicast() {
        return Err(ValueError::rule(MAC, &mac, "must be one device's address"));
    }
    Ok(Some(Vtep { vni, mac }))
}

fn address<A: std::str::FromStr>(object: &Object, field: &'static str, wants: &str) -> Result<Option<A>, ValueError> {
    let text = object.string(field).map_err(|error| ValueError::wrong_type(field, &error))?;
    text.map(|text| text.parse().map_err(|_| ValueError::rule(field, &text, format!("must be {wants}")))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UDP: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null}"#;
    const VXLAN: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;
    const DUAL: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}"#;

    #[test]
    fn flannels_values_survive_byte_for_byte() {
        for value in [UDP, VXLAN, DUAL] {
            let node = Node::parse(value.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(node.to_value()).unwrap(), value);
        }
    }

    #[test]
    fn unknown_fields_and_foreign_backends_are_read() {
        let node =
            Node::parse(br#"{"X":{"Y":[1]},"PublicIP":"192.0.2.1","BackendType":"host-gw","BackendData":"any"}"#)
                .unwrap();
        assert_eq!(node.backend, Backend::Other("host-gw".to_owned()));
        let node = Node::parse(br#"{"PublicIP":"192.0.2.1","BackendData":null}"#).unwrap();
        assert_eq!(node.backend, Backend::Udp);
    }

    #[test]
    fn a_node_with_ipv6_alone_publishes_no_ipv4_address() {
        let value = br#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::3","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}"#;
        let node = Node::parse(value).unwrap();
        assert!(node.public_ip.is_unspecified());
        assert_eq!(node.to_value(), value);
    }

    #[test]
    fn every_broken_rule_is_named_in_one_line() {
        let cases = [
            ("", "not JSON"),
            ("null", "not a JSON object"),
            ("{}", "PublicIP is missing"),
            (r#"{"PublicIP":null}"#, "PublicIP is missing"),
            (r#"{"PublicIP":1}"#, "PublicIP 1: must be a string"),
            (r#"{"PublicIP":"fd00::1"}"#, "PublicIP fd00::1: must be an IPv4 address"),
            (r#"{"PublicIP":"0.0.0.0"}"#, "PublicIP 0.0.0.0: must be one node's address"),
            (r#"{"PublicIP":"224.0.0.1"}"#, "PublicIP 224.0.0.1: must be one node's address"),
            (r#"{"PublicIP":"192.0.2.1","PublicIPv6":"::"}"#, "PublicIPv6 ::: must be one node's address"),
            (r#"{"PublicIP":"192.0.2.1","PublicIPv6":[]}"#, "PublicIPv6 []: must be a string"),
            (r#"{"PublicIP":"192.0.2.1","BackendType":7}"#, "BackendType 7: must be a string"),
            (r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan"}"#, "BackendData is missing"),
            (
                r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":"x"}"#,
                "BackendData \"x\": must be an object",
            ),
            (r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{}}"#, "VtepMAC is missing"),
            (
                r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"x"}}"#,
                "VtepMAC x: not a MAC address",
            ),
            (
                r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VtepMAC":"ff:ff:ff:ff:ff:ff"}}"#,
                "one device's address",
            ),
            (
                r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":"1","VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
                "VNI \"1\": must be a whole number",
            ),
        ];
        for (json, expected) in cases {
            let error = Node::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{json}\n  gave {error}");
        }
    }

    #[test]
    fn invalid_utf8_deep_nesting_and_huge_values_are_refused() {
        let deep = format!(r#"{{"PublicIP":"192.0.2.1","X":{}"#, "[".repeat(20_000));
        for value in [&b"{\"PublicIP\":\"\xff\"}"[..], &vec![b'x'; 10 << 20], deep.as_bytes()] {
            assert!(Node::parse(value).unwrap_err().to_string().len() < 200);
        }
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let vtep = (0u32..1 << 24, any::<[u8; 6]>()).prop_map(|(vni, mut mac)| {
            (mac[0], mac[5]) = (mac[0] & 0xfe, mac[5] | 1);
            Vtep { vni, mac: Mac(mac) }
        });
        let vxlan = (vtep.clone(), proptest::option::of(vtep)).prop_map(|(v4, v6)| Backend::Vxlan { v4: Some(v4), v6 });
        let backend = prop_oneof![
            Just(Backend::Udp),
            vxlan,
            "[a-z-]{1,12}".prop_filter_map("one of ours", |name| {
                (!matches!(name.as_str(), "udp" | "vxlan")).then_some(Backend::Other(name))
            })
        ];
        let v6 = proptest::option::of((1u128..u128::MAX >> 8).prop_map(Ipv6Addr::from_bits));
        (0x0100_0000u32..0x7f00_0000, v6, backend).prop_map(|(v4, public_ipv6, backend)| Node {
            public_ip: Ipv4Addr::from_bits(v4),
            public_ipv6,
            backend,
        })
    }

    proptest! {
        #[test]
        fn every_node_survives_its_value(node in any_node()) {
            prop_assert_eq!(Node::parse(&node.to_value()), Ok(node));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _parsed = Node::parse(&bytes);
        }

        #[test]
        fn no_damaged_value_panics(at in 0usize..170, byte: u8) {
            let mut value = DUAL.as_bytes().to_vec();
            value[at] = byte;
            let _parsed = Node::parse(&value);
        }
    }
}
