//! The report of a soak for people.

use super::{
    report::{Count, FlapOutcome, PairOutcome, SoakReport, TcpOutcome},
    verdict,
};

/// All of it, as `soak.md` holds it.
pub(crate) fn text(report: &SoakReport) -> String {
    let (blows, containers) = (report.blows, report.containers);
    let mut lines = vec![
        "# Soak".to_owned(),
        String::new(),
        format!("{:.0} s, seed {}. {}", report.seconds, report.seed, judgement(report)),
        String::new(),
        format!(
            "Agents: {} killed, {} asked to end, {} stopped for a while, {} started. etcd's members: {} killed, {} stopped for \
             a while; no majority {} times. Containers: {} came, {} went.",
            blows.agents_killed,
            blows.agents_stopped,
            blows.agents_paused,
            blows.agents_started,
            blows.members_killed,
            blows.members_paused,
            blows.majorities_lost,
            containers.came,
            containers.went
        ),
    ];
    lines.extend(report.problems.iter().map(|problem| format!("- **{problem}**")));
    lines.extend(packets(report));
    lines.extend(flaps(&report.flaps));
    lines.extend(leftovers(report));
    lines.join("\n") + "\n"
}

fn judgement(report: &SoakReport) -> String {
    match report.problems.len() {
        0 => "Nothing is left over, and no packet was lost but by flaps.".to_owned(),
        problems => format!("**{problems} problems:**"),
    }
}

fn packets(report: &SoakReport) -> Vec<String> {
    let mut lines = section("Packets", "from | to | sent | lost by flaps | lost for no reason | doubled");
    for PairOutcome { from, to, sent, doubled, lost_by_flaps, lost_for_no_reason } in &report.pairs {
        let lost = lost_for_no_reason.len();
        lines.push(format!("| {from} | {to} | {sent} | {lost_by_flaps} | {lost} | {doubled} |"));
    }
    lines.push(String::new());
    lines.push(match &report.tcp {
        TcpOutcome::Carried { bytes, retransmitted } => {
            format!("TCP, one connection all the time: {} MB, {retransmitted} segments sent again.", bytes / 1_000_000)
        }
        TcpOutcome::Broken(why) => format!("TCP: broken, {why}"),
    });
    lines.extend(report.drops.iter().map(|drops| format!("- dropped on {drops}")));
    lines
}

fn flaps(flaps: &[FlapOutcome]) -> Vec<String> {
    let mut lines = section("Flaps", "node | what was down | from s | for s | packets lost | until s after it was up");
    for FlapOutcome { node, side, down, up, lost, recovery } in flaps {
        lines.push(format!("| {node} | {side:?} | {down:.1} | {:.2} | {lost} | {recovery:.3} |", up - down));
    }
    lines
}

fn leftovers(report: &SoakReport) -> Vec<String> {
    let mut lines = section("What is there", "what | before | after");
    lines.extend(report.counts.iter().map(|Count { what, before, after }| format!("| {what} | {before} | {after} |")));
    lines.push(String::new());
    if let Some((settled, last)) = verdict::settled_and_last(&report.memory, |sample| sample.resident_kib as f64) {
        lines.push(format!(
            "The agent that nobody struck: {settled:.0} KiB once it had settled, {last:.0} KiB at the end."
        ));
    }
    lines
}

/// A heading, and that of a table.
fn section(title: &str, columns: &str) -> Vec<String> {
    let rule = columns.split('|').map(|_| "---").collect::<Vec<_>>().join("|");
    vec![String::new(), format!("## {title}"), String::new(), format!("| {columns} |"), format!("|{rule}|")]
}
