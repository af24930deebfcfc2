//! What interfaces are called.

use nix::net::if_::if_indextoname;

/// The name of the interface with this index in this network namespace; none when there is no such interface (any more).
///
/// nix 0.31 takes the null pointer that says so for success, and gives an empty name.
pub(crate) fn interface_name(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_gone_has_no_name() {
        assert_eq!(interface_name(1).as_deref(), Some("lo"));
        assert_eq!(interface_name(i32::MAX.unsigned_abs()), None);
    }
}
