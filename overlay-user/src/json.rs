//! JSON objects read the way flannel reads them: key names match in any case, `null` is as good as absent, and keys
//! that nobody asks for are ignored.

use serde_json::{Map, Value};

/// A JSON object whose keys match case-insensitively.
#[derive(Debug)]
pub(crate) struct Object(Map<String, Value>);

/// A value that is there, but not of the type that its key wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongType {
    /// The value as it was found, cut to a length that fits a line.
    pub(crate) found: String,
    /// What the key wants, for example "a number".
    pub(crate) wants: &'static str,
}

impl Object {
    /// Reads `bytes`, which must hold one JSON object and at most `max` bytes.
    ///
    /// # Errors
    /// One line that says why `bytes` are no such object.
    pub(crate) fn parse(bytes: &[u8], max: usize) -> Result<Self, String> {
        if bytes.len() > max {
            return Err(format!("{} bytes, more than the {max} allowed", bytes.len()));
        }
        serde_json::from_slice(bytes).map(Self).map_err(|error| match error.classify() {
            // "invalid type: string ..., expected a map" may quote the whole value.
            serde_json::error::Category::Data => "not a JSON object".to_owned(),
            _ => format!("not JSON: {error}"),
        })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let folded = || self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        self.0.get(name).or_else(folded).filter(|value| !value.is_null())
    }

    /// Whether the key is there at all, even with the value `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.keys().any(|key| key.eq_ignore_ascii_case(name))
    }

    pub(crate) fn string(&self, name: &str) -> Result<Option<&str>, WrongType> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, WrongType> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, WrongType> {
        self.typed(name, "a whole number, zero or more", Value::as_u64)
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, WrongType> {
        self.typed(name, "an object", |value| value.as_object().cloned().map(Self))
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        wants: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WrongType> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| WrongType { found: shortened(&value.to_string()), wants })
    }
}

/// `text` on one line of at most 80 characters, control characters escaped: what an error may quote of foreign data.
pub(crate) fn shortened(text: &str) -> String {
    const LIMIT: usize = 80;
    // Escaping makes text longer, never shorter, so nothing past the limit needs a look.
    let head: String = text.chars().take(LIMIT + 1).collect();
    let escaped: String =
        head.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect();
    if escaped.chars().count() <= LIMIT {
        return escaped;
    }
    escaped.chars().take(LIMIT - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_in_any_case_and_null_is_absent() {
        let object = Object::parse(br#"{"NETWORK": "a", "subnetlen": 3, "Backend": null}"#, 100).unwrap();
        assert_eq!(object.string("Network"), Ok(Some("a")));
        assert_eq!(object.number("SubnetLen"), Ok(Some(3)));
        assert!(object.object("Backend").unwrap().is_none());
        assert!(object.has("backend"));
        assert!(!object.has("Port"));
    }

    #[test]
    fn the_exact_spelling_wins() {
        let object = Object::parse(br#"{"a": 1, "A": 2}"#, 100).unwrap();
        assert_eq!(object.number("A"), Ok(Some(2)));
    }

    #[test]
    fn what_is_no_object_is_refused_in_one_short_line() {
        let long = format!("\"{}\"", "x".repeat(5000));
        for bad in [&b"\xff\xfe"[..], b"", b"[1]", b"7", b"{", long.as_bytes()] {
            let error = Object::parse(bad, 10_000).unwrap_err();
            assert!(!error.contains('\n') && error.len() < 120, "{error}");
        }
        assert_eq!(Object::parse(&[b' '; 11], 10).unwrap_err(), "11 bytes, more than the 10 allowed");
    }

    #[test]
    fn quoted_values_stay_on_one_line() {
        assert_eq!(shortened("a\nb"), "a\\nb");
        assert_eq!(shortened(&"ü".repeat(500)).chars().count(), 80);
        assert_eq!(shortened("short"), "short");
    }
}
