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
        Node::parse(br#"{"X":{"Y":[1]},"PublicIP":"192.0.2.1","BackendType":"host-gw","BackendData":"any"}"#).unwrap();
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
fn a_node_is_told_by_its_ipv4_address_and_where_that_is_missing_by_ipv6() {
    let node = |ipv4: [u8; 4], ipv6: Option<u16>| Node {
        public_ip: ipv4.into(),
        public_ipv6: ipv6.map(|last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)),
        backend: Backend::Udp,
    };
    let (ours, none) = ([192, 0, 2, 1], [0; 4]);
    for (one, other, same) in [
        (node(ours, None), node(ours, None), true),
        (node(ours, Some(1)), node(ours, Some(2)), true),
        (node(ours, Some(1)), node([192, 0, 2, 2], Some(1)), false),
        (node(ours, Some(1)), node(none, Some(1)), true),
        (node(none, Some(1)), node(none, Some(2)), false),
        (node(ours, None), node(none, None), false),
        (node(ours, None), node(none, Some(1)), false),
    ] {
        assert_eq!((one.is_same_as(&other), other.is_same_as(&one)), (same, same), "{one:?}, {other:?}");
    }
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
        (r#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":"x"}"#, "BackendData \"x\": must be an object"),
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
    let vtep = (0u32..1 << 24, any::<[u8; 6]>(), any::<bool>()).prop_map(|(vni, mut mac, takes_no_checksum)| {
        (mac[0], mac[5]) = (mac[0] & 0xfe, mac[5] | 1);
        Vtep { vni, mac: Mac(mac), takes_no_checksum }
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

fn any_name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 8] =
        ["PublicIP", "publicip", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "VNI", "VtepMAC"];
    prop_oneof![proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), ".{0,9}"]
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let texts = ["192.0.2.1", "fd00::1", "vxlan", "udp", "0.0.0.0", "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"];
    let text = prop_oneof![proptest::sample::select(texts.to_vec()).prop_map(str::to_owned), ".{0,200}"];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        text.prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let object = proptest::collection::btree_map(any_name(), inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(serde_json::Value::from),
            object.prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_node_survives_its_value(node in any_node()) {
        prop_assert_eq!(Node::parse(&node.to_value()), Ok(node));
    }

    #[test]
    fn any_json_is_a_node_or_one_short_line(fields in proptest::collection::btree_map(any_name(), any_json(), 0..6)) {
        let value = serde_json::to_vec(&fields).unwrap();
        if let Err(error) = Node::parse(&value) {
            let line = error.to_string();
            prop_assert!(line.len() < 400 && !line.contains('\n'), "{}", line);
        }
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
