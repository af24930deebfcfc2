//! The result as a table.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, Table, presets};

use crate::measure::{Counted, Pair};

/// One row for each pair, with the container's address where that is not IPv4 for all.
pub(crate) fn table(pairs: &[Pair]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "from",
        "to",
        "address",
        "pings",
        "lost",
        "rtt ms",
        "ping packets",
        "TCP Gbit/s",
        "all packets",
        "",
    ]);
    table.add_rows(pairs.iter().map(row));
    for column in table.column_iter_mut().skip(3).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    if pairs.iter().all(|pair| pair.address.is_ipv4()) {
        table.column_mut(2).map(|column| column.set_constraint(ColumnConstraint::Hidden));
    }
    table
}

fn row(pair: &Pair) -> Vec<Cell> {
    let pings = pair.pings;
    let none = || "-".to_owned();
    let rate = pair.stream.as_ref().map(|stream| format!("{:.2}", stream.gbit_per_second()));
    vec![
        Cell::new(&pair.from),
        Cell::new(&pair.to),
        Cell::new(pair.address),
        Cell::new(pings.sent),
        Cell::new(pings.sent - pings.received),
        Cell::new(pings.average_ms.map_or_else(none, |average| format!("{average:.3}"))),
        Cell::new(counted(pair.after_pings)),
        Cell::new(rate.unwrap_or_else(|_| none())),
        Cell::new(counted(pair.after_all)),
        Cell::new(if pair.problems().is_empty() { "ok" } else { "FAILED" }),
    ]
}

/// One number when both ends agree.
fn counted(packets: Counted) -> String {
    let Counted { encap, decap } = packets;
    if encap == decap { encap.to_string() } else { format!("{encap} encap, {decap} decap") }
}
