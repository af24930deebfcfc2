//! How long a test waits on a slow machine.

use std::{env, sync::LazyLock, time::Duration};

/// The variable that multiplies the limits of all waits: an emulated processor is twenty times slower than a real one.
const VARIABLE: &str = "OVERLAY_TEST_PATIENCE";

static PATIENCE: LazyLock<u32> = LazyLock::new(|| factor(env::var(VARIABLE).ok().as_deref()));

/// How long to wait where `limit` is enough on a real machine.
///
/// # Panics
///
/// When `OVERLAY_TEST_PATIENCE` is no whole number: a typing error would else look like a machine too slow.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    limit.saturating_mul(*PATIENCE)
}

/// What limits are multiplied by: 1 where nothing else is asked for.
fn factor(value: Option<&str>) -> u32 {
    let Some(value) = value else { return 1 };
    match value.parse() {
        Ok(factor @ 1..) => factor,
        _ => panic!("{VARIABLE}={value} is no whole number from 1: set one, or unset it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_unless_patience_is_asked_for() {
        assert_eq!([None, Some("1"), Some("20")].map(factor), [1, 1, 20]);
    }

    #[test]
    #[should_panic(expected = "OVERLAY_TEST_PATIENCE=0 is no whole number from 1")]
    fn no_patience_at_all_is_refused() {
        factor(Some("0"));
    }
}
