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
    #[serde(rename = "TakesNoChecksum", skip_serializing_if = "std::ops::Not::not")]
    takes_no_checksum: bool,
}

impl From<Vtep> for WrittenVtep {
    fn from(vtep: Vtep) -> Self {
        Self { vni: vtep.vni, mac: vtep.mac.to_string(), takes_no_checksum: vtep.takes_no_checksum }
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
    const FLAG: &str = "TakesNoChecksum";
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
    let takes_no_checksum = data.bool(FLAG).map_err(|error| ValueError::wrong_type(FLAG, &error))?.unwrap_or(false);
    Ok(Some(Vtep { vni, mac, takes_no_checksum }))
}

fn address<A: std::str::FromStr>(object: &Object, field: &'static str, wants: &str) -> Result<Option<A>, ValueError> {
    let text = object.string(field).map_err(|error| ValueError::wrong_type(field, &error))?;
    text.map(|text| text.parse().map_err(|_| ValueError::rule(field, &text, format!("must be {wants}")))).transpose()
}

#[cfg(test)]
mod tests;
