//! Explicit Congestion Notification across the tunnel (RFC 6040).
//!
//! Encap is RFC 6040's "normal mode": the outer header carries the inner DSCP and ECN bits unchanged, so nothing
//! needs computing there. Decap combines the two.

const ECN_MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer header reports congestion to a transport that cannot be told: the packet must be dropped, as the
/// router that marked it would have done (RFC 6040, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CeOnNotEct;

/// The TOS byte of the inner packet after decap, from the TOS bytes of both headers: the inner DSCP, and the
/// ECN field of RFC 6040, figure 4.
///
/// # Errors
/// [`CeOnNotEct`] when the packet must be dropped.
#[inline(always)]
pub const fn decapsulated_tos(inner: u8, outer: u8) -> Result<u8, CeOnNotEct> {
    let ecn = match (inner & ECN_MASK, outer & ECN_MASK) {
        (NOT_ECT, CE) => return Err(CeOnNotEct),
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok((inner & !ECN_MASK) | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040, figure 4: rows are the inner field, columns the outer one, in the order of the figure.
    #[test]
    fn decap_follows_figure_4_of_rfc_6040() {
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let figure = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (row, inner) in figure.iter().zip(order) {
            for (expected, outer) in row.iter().zip(order) {
                let dscp = 0b1011_1000;
                let got = decapsulated_tos(dscp | inner, outer);
                assert_eq!(got.ok(), expected.map(|ecn| dscp | ecn), "inner {inner:02b} outer {outer:02b}");
            }
        }
    }
}
