//! The report for people: `report.md`.

use std::fmt::Write as _;

use crate::{
    ground::GROUNDS,
    leases::LeasesReport,
    report::{Cost, Datapath, FloodCost, FlowCost, LookupCost, Machine, ProgramTime, Ratios, Report, Row},
    stats::Summary,
    subject::SUBJECTS,
    workload::{WORKLOADS, Workload},
};

/// The name of the file.
pub(crate) const FILE: &str = "report.md";

/// All of it.
pub(crate) fn text(report: &Report) -> String {
    let mut text = "# Bench\n".to_owned();
    if let Some(datapath) = &report.datapath {
        text += &self::datapath(datapath);
    }
    if let Some(programs) = &report.programs {
        text += &self::programs(programs);
    }
    if let Some(lookup) = &report.lookup {
        text += &self::lookup(lookup);
    }
    if let Some(flows) = &report.flows {
        text += &self::flows(flows);
    }
    if let Some(flood) = &report.flood {
        text += &self::flood(flood);
    }
    if let Some(leases) = &report.leases {
        text += &self::leases(leases);
    }
    text
}

fn machine(machine: &Machine) -> String {
    let Machine { kernel, cpu, cpus, load } = machine;
    format!("Linux {kernel}, {cpus} CPUs ({cpu}), load average at the start {:.2}", load[0])
}

fn datapath(datapath: &Datapath) -> String {
    let mut text = format!(
        "\n## Data path\n\n{}; {} rounds of {:.2} s each.\n\n\
         Medians of the rounds; in brackets the ratio within a round to kernel VXLAN / plain routing / bare, with \
         masquerading to those that masquerade too, with IPv6 to those with the same. `6in4` is IPv6 over an IPv4 underlay, \
         `4in6` the other way around. `plain-again` is plain routing once more: how far it is from 1 is \
         noise. `±` is the spread of the rounds.\n\n\
         Underlay `gso`: super-packets cross the underlay whole; `nic`: packets of MTU size, merged by the receiver. CPUs \
         `one`: everything on one; `two`: one for each node.\n",
        machine(&datapath.machine),
        datapath.rounds,
        datapath.seconds
    );
    for warning in &datapath.warnings {
        writeln!(text, "\n**Warning:** {warning}").ok();
    }
    for ground in GROUNDS {
        let (underlay, cpus) = (ground.underlay.to_string(), ground.layout.to_string());
        let rows: Vec<_> = datapath.rows.iter().filter(|row| row.underlay == underlay && row.cpus == cpus).collect();
        if !rows.is_empty() {
            write!(text, "\n### {underlay}, {cpus}\n\n{}", rates(&rows)).ok();
            write!(text, "\nCPU time, softirqs included:\n\n{}", costs(&rows)).ok();
            let ipv6: Vec<_> = rows.into_iter().filter(|row| row.ratio.ipv4.is_some()).collect();
            if !ipv6.is_empty() {
                write!(text, "\nRate over that of the same with IPv4 inside and outside:\n\n{}", over_ipv4(&ipv6)).ok();
            }
        }
    }
    text
}

/// What each subject did: one line for each.
fn rates(rows: &[&Row]) -> String {
    let header = ["subject", "TCP Gbit/s", "4 TCP Gbit/s", "requests 1000/s", "p50 µs", "p99 µs", "UDP 1000/s"];
    by_subject(&header, rows, |row, workload| match workload {
        Workload::Stream(_) => vec![cell(row, |row| Some(rate(row, 1.0, 2)))],
        Workload::Request => vec![
            cell(row, |row| Some(rate(row, 1e3, 1))),
            cell(row, |row| row.p50_us.as_ref().map(delay)),
            cell(row, |row| row.p99_us.as_ref().map(delay)),
        ],
        Workload::Udp => vec![cell(row, |row| Some(rate(row, 1e3, 1)))],
    })
}

/// What each subject took: one line for each.
fn costs(rows: &[&Row]) -> String {
    let header = ["subject", "TCP ms/Gbit", "4 TCP ms/Gbit", "request µs", "UDP packet µs"];
    by_subject(&header, rows, |row, workload| {
        let (per, digits) = if matches!(workload, Workload::Stream(_)) { (1e3, 1) } else { (1.0, 2) };
        vec![cell(row, |row| Some(format!("{:.digits$}", row.cpu_us_per_unit.median / per)))]
    })
}

/// What IPv6 makes of the rates: one line for each subject with it.
fn over_ipv4(rows: &[&Row]) -> String {
    let header = ["subject", "TCP", "4 TCP", "requests", "UDP"];
    by_subject(&header, rows, |row, _| vec![cell(row, |row| Some(format!("{:.2}", row.ratio.ipv4?)))])
}

/// A line for each subject, the cells of the workloads from `cells`.
fn by_subject(header: &[&str], rows: &[&Row], cells: impl Fn(Option<&Row>, Workload) -> Vec<String>) -> String {
    let line = |subject: &str| {
        let mut line = vec![subject.to_owned()];
        for workload in WORKLOADS {
            let name = workload.to_string();
            let row = rows.iter().find(|row| row.subject == subject && row.workload == name);
            line.extend(cells(row.copied(), workload));
        }
        line
    };
    let present =
        SUBJECTS.iter().map(|subject| subject.name).filter(|name| rows.iter().any(|row| row.subject == *name));
    table(header, &present.map(line).collect::<Vec<_>>())
}

/// A figure, or a dash where it was not measured.
fn cell(row: Option<&Row>, text: impl Fn(&Row) -> Option<String>) -> String {
    row.and_then(text).unwrap_or_else(|| "-".to_owned())
}

fn rate(row: &Row, per: f64, digits: usize) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let Ratios { kernel_vxlan, plain, bare, .. } = row.ratio;
    let (median, spread) = (row.rate.median / per, row.rate.spread * 100.0);
    let ratios = [kernel_vxlan, plain, bare].map(ratio).join(" / ");
    format!("{median:.digits$} ±{spread:.0} % ({ratios})")
}

fn delay(delay: &Summary) -> String {
    format!("{:.1}", delay.median)
}

fn programs(programs: &[ProgramTime]) -> String {
    let line = |time: &ProgramTime| {
        vec![time.subject.clone(), time.program.clone(), time.packets.to_string(), format!("{:.0}", time.ns_per_packet)]
    };
    let lines: Vec<_> = programs.iter().map(line).collect();
    format!(
        "\n## Program run time\n\nAs the kernel counts it, its reading of the clock included; 64-byte UDP, both nodes \
         on one CPU.\n\n{}",
        table(&["subject", "program", "packets", "ns/packet"], &lines)
    )
}

fn lookup(lookup: &[LookupCost]) -> String {
    let line =
        |cost: &LookupCost| [vec![cost.program.clone(), cost.routes.to_string()], self::cost(&cost.cost)].concat();
    let lines: Vec<_> = lookup.iter().map(line).collect();
    format!(
        "\n## Cost by cluster size\n\nOne run of a program without a network (`BPF_PROG_TEST_RUN`). Hot: the same packet again \
         and again. Cold: another subnet each time, run once, starting the run included. In brackets the ratio within a \
         round to the fewest routes.\n\n{}",
        table(&["program", "routes", "hot ns", "cold ns"], &lines)
    )
}

fn flows(flows: &[FlowCost]) -> String {
    let line = |cost: &FlowCost| [vec![cost.flows.to_string()], self::cost(&cost.cost)].concat();
    let lines: Vec<_> = flows.iter().map(line).collect();
    format!(
        "\n## Cost by number of flows\n\n`to_container` without a network, as above.\n\n{}",
        table(&["flows", "hot ns", "cold ns"], &lines)
    )
}

/// Hot and cold.
fn cost(cost: &Cost) -> Vec<String> {
    let cell = |ns: Option<f64>, ratio: Option<f64>| match (ns, ratio) {
        (Some(ns), Some(ratio)) => format!("{ns:.0} ({ratio:.2})"),
        _ => "-".to_owned(),
    };
    vec![cell(cost.hot_ns, cost.hot_ratio), cell(cost.cold_ns, cost.cold_ratio)]
}

fn flood(flood: &[FloodCost]) -> String {
    let line = |cost: &FloodCost| {
        let rate = |rate: f64| format!("{:.1} ({:.2})", rate / 1e3, rate / cost.before);
        let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let rates = [cost.before, cost.during, cost.after].map(rate).to_vec();
        let memory = [cost.table_bytes_before, cost.table_bytes_after].map(mb).to_vec();
        [vec![format!("{} of {}", cost.kind, cost.flows)], rates, memory].concat()
    };
    let lines: Vec<_> = flood.iter().map(line).collect();
    let header = ["flood", "UDP 1000/s before", "during", "after", "flow tables MB before", "flow tables MB after"];
    format!(
        "\n## Flood of new flows\n\nAn established flow on one CPU, the flood on the other; in brackets the ratio to the rate \
         before.\n\n{}",
        table(&header, &lines)
    )
}

fn leases(leases: &LeasesReport) -> String {
    let header = ["leases", "routes ms", "forwarding ms", "subnet.env ms", "CPU s", "resident MB", "peak MB"];
    let lines = leases.starts.iter().map(|start| {
        let times = [&start.routes_ms, &start.forwarding_ms, &start.ready_ms].map(|t| format!("{:.0}", t.median));
        let memory = [&start.resident_mb, &start.peak_mb].map(|memory| format!("{:.1}", memory.median));
        let cpu = format!("{:.2}", start.cpu_seconds.median);
        [vec![start.leases.to_string()], times.to_vec(), vec![cpu], memory.to_vec()].concat()
    });
    let mut text = format!("\n## Leases\n\n{}.\n\nStart of an agent:\n\n", machine(&leases.machine));
    text += &table(&header, &lines.collect::<Vec<_>>());
    let change = &leases.change;
    writeln!(
        text,
        "\nOne new lease among {}, {} times: route p50 {:.2} ms, p99 {:.2} ms; packet p50 {:.2} ms, p99 {:.2} ms.",
        change.leases,
        change.changes,
        change.route_p50_ms,
        change.route_p99_ms,
        change.packet_p50_ms,
        change.packet_p99_ms
    )
    .ok();
    let rate = &leases.rate;
    writeln!(
        text,
        "\n{:.0} changes a second for {:.0} s: lag p99 {:.1} ms, of the last one {:.1} ms; the agent took {:.2} CPU s.",
        rate.changes_per_second, rate.seconds, rate.lag_p99_ms, rate.last_lag_ms, rate.cpu_seconds
    )
    .ok();
    let storm = &leases.storm;
    writeln!(
        text,
        "\n{} agents at once: all have different subnets after {:.2} s, each a route to every other after {:.2} s.\n",
        storm.agents, storm.subnets_seconds, storm.routes_seconds
    )
    .ok();
    let aim = |aim: &crate::leases::Aim| {
        let met = if aim.met { "yes" } else { "NO" }.to_owned();
        vec![aim.what.clone(), format!("< {}", aim.limit), format!("{:.2}", aim.value), met]
    };
    text + &table(&["aim", "wanted", "is", "met"], &leases.aims.iter().map(aim).collect::<Vec<_>>())
}

/// A Markdown table; all columns but the first are for numbers.
fn table(header: &[&str], lines: &[Vec<String>]) -> String {
    let rule = header.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "---:" });
    let mut text = format!("| {} |\n| {} |\n", header.join(" | "), rule.collect::<Vec<_>>().join(" | "));
    for line in lines {
        writeln!(text, "| {} |", line.join(" | ")).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Better;

    #[test]
    fn a_workload_that_was_not_measured_leaves_its_columns_empty() {
        let of = |value| Summary::of(vec![value], Better::Higher).unwrap();
        let row = Row {
            subject: "bare".to_owned(),
            underlay: "nic".to_owned(),
            cpus: "two".to_owned(),
            workload: "udp".to_owned(),
            unit: "packet".to_owned(),
            rate: of(5000.0),
            cpu_us_per_unit: of(1.5),
            p50_us: None,
            p99_us: None,
            ratio: Ratios { bare: Some(1.0), ..Ratios::default() },
        };
        let lines = |text: String| text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(rates(&[&row])), ["| bare | - | - | - | - | - | 5.0 ±0 % (- / - / 1.00) |"]);
        assert_eq!(lines(costs(&[&row])), ["| bare | - | - | - | 1.50 |"]);
    }
}
