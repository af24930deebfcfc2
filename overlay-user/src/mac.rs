//! [`Mac`]: a MAC address as text, the way flannel writes it.

use std::fmt;
use std::str::FromStr;

/// A MAC address. Prints as `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// An address drawn by chance, unicast and locally administered.
    #[must_use]
    pub fn random() -> Self {
        let mut octets: [u8; 6] = rand::random();
        octets[0] = (octets[0] & 0xfc) | 0x02;
        Self(octets)
    }

    /// Whether a network device can have this address: neither all zero nor a group address.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        let zero = u64::from_be_bytes([0, 0, self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]]) == 0;
        !zero && self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address like aa:bb:cc:dd:ee:ff")]
pub struct ParseMacError;

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Reads six pairs of hexadecimal digits with `:` or `-` between them, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.as_bytes();
        if text.len() != 17 {
            return Err(ParseMacError);
        }
        let separator = text[2];
        let mut mac = [0; 6];
        for (byte, group) in mac.iter_mut().zip(text.chunks(3)) {
            *byte = digit(group[0])? << 4 | digit(group[1])?;
            if group.get(2).is_some_and(|&s| s != separator || !matches!(s, b':' | b'-')) {
                return Err(ParseMacError);
            }
        }
        Ok(Self(mac))
    }
}

fn digit(byte: u8) -> Result<u8, ParseMacError> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(ParseMacError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_separators_and_cases_are_read_and_one_form_is_written() {
        for text in ["C6:D2:32:6F:8F:44", "c6-d2-32-6f-8f-44"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "c6:d2:32:6f:8f:44");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "c6:d2:32:6f:8f",
            "c6:d2:32:6f:8f:4",
            "c6:d2-32:6f:8f:44",
            "c6.d2.32.6f.8f.44",
            "+6:d2:32:6f:8f:44",
            "c6:d2:32:6f:8f:4é",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError), "{text}");
        }
    }

    #[test]
    fn a_device_has_neither_a_zero_nor_a_group_address() {
        assert!(!Mac([0; 6]).is_unicast());
        assert!(!Mac([0xff; 6]).is_unicast());
        assert!(Mac([0, 0, 0, 0, 0, 1]).is_unicast());
    }

    proptest! {
        #[test]
        fn every_address_survives_text(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse::<Mac>(), Ok(Mac(bytes)));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _parsed = text.parse::<Mac>();
        }
    }
}
