//! Draws a [`Model`]. Everything has its place on 80 columns and 24 lines; fewer show less.

mod help;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Row as TableRow, Sparkline, Table},
};

use super::model::{Column, Model, Row, Trend};
use crate::status::{Status, percent, si};

/// Widths of the columns; the last is for the sparkline. With a space between any two they take 80.
const WIDTHS: [u16; 7] = [18, 15, 8, 8, 9, 4, 12];
/// All but the sparkline, which is left out where there is no room for it; with the five spaces.
const WIDTHS_WITHOUT_TREND: u16 = WIDTHS[0] + WIDTHS[1] + WIDTHS[2] + WIDTHS[3] + WIDTHS[4] + WIDTHS[5] + 5;
/// As many reasons for drops have a line; of more, those with the highest rate.
const DROPS: usize = 4;

const KEYS: &str = "s sort by the next column  r reverse  p pause  h help  q quit";

/// Draws everything.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    // Some widgets index cells without asking whether there are any.
    if frame.area().is_empty() {
        return;
    }
    let Some(status) = &model.status else {
        frame.render_widget("measuring rates ...", frame.area());
        return;
    };
    let problem = problem(model, status);
    let (peers, containers, drops) = (model.peers(), model.containers(), drops(status));
    let [title, totals, trouble, peers_area, containers_area, drops_area, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(u16::from(problem.is_some())),
        Constraint::Fill(1),
        // With its heading; never more than half.
        Constraint::Max(lines(containers.len() + 1).min(frame.area().height.saturating_sub(6) / 2)),
        Constraint::Length(lines(drops.len())),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(heading(model, status), title);
    draw_totals(model, status, frame, totals);
    frame.render_widget(problem.map(|problem| Line::from(problem).red().bold()), trouble);
    draw_rows(model, frame, peers_area, ["PEER", "NODE"], &peers);
    draw_rows(model, frame, containers_area, ["CONTAINER", "INTERFACE"], &containers);
    for (line, area) in drops.into_iter().zip(drops_area.rows()) {
        frame.render_widget(line, area);
    }
    frame.render_widget(Line::from(KEYS).dim(), keys);
    if model.help {
        help::draw(frame);
    }
}

fn lines(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The most urgent one.
fn problem(model: &Model, status: &Status) -> Option<String> {
    let unreadable = model.unreadable.as_ref().map(|error| format!("not read any more: {error}"));
    unreadable.or_else(|| {
        let (first, more) = status.problems.split_first()?;
        Some(if more.is_empty() { first.clone() } else { format!("{first} (and {} more)", more.len()) })
    })
}

fn heading<'a>(model: &Model, status: &Status) -> Line<'a> {
    let node = &status.node;
    let subnet = node.subnets_text().unwrap_or_else(|| "no subnet".to_owned());
    let underlay = node.underlay.as_deref().unwrap_or("gone");
    let backend = if node.vni == 0 { "udp" } else { "vxlan" };
    let mut spans =
        vec!["overlay top".bold(), format!("  {subnet}  {underlay} {}  {backend}", node.addresses_text()).into()];
    if model.paused {
        spans.extend([Span::raw("  "), "PAUSED".yellow().reversed()]);
    }
    Line::from(spans)
}

fn draw_totals(model: &Model, status: &Status, frame: &mut Frame<'_>, area: Rect) {
    let total = &model.total;
    let dropped: u64 = status.drops.iter().map(|drops| drops.rate).sum();
    let fast = percent(total.fast_share());
    let (sent, received) = (si(total.encap_bytes), si(total.decap_bytes));
    let text = format!("sent {sent} B/s  received {received} B/s  fast path {fast}  dropped {}/s  ", si(dropped));
    let [words, trend] = Layout::horizontal([Constraint::Length(lines(text.len())), Constraint::Fill(1)]).areas(area);
    frame.render_widget(text, words);
    draw_trend(&model.trend, frame, trend);
}

/// One table: a heading, and as many rows as there is room for; if not all, their number.
fn draw_rows(model: &Model, frame: &mut Frame<'_>, area: Rect, [name, beside]: [&'static str; 2], rows: &[&Row]) {
    let room = usize::from(area.height.saturating_sub(1));
    let (shown, left) = if rows.len() > room { (room.saturating_sub(1), true) } else { (rows.len(), false) };
    let trend = area.width > WIDTHS_WITHOUT_TREND + WIDTHS[6];
    let widths = if trend { &WIDTHS[..] } else { &WIDTHS[..6] };
    let mut cells: Vec<TableRow<'_>> = rows[..shown].iter().map(|row| cells(row)).collect();
    if left && room > 0 {
        cells.push(TableRow::new([format!("{} more", rows.len() - shown)]).dim());
    }
    let table = Table::new(cells, widths.iter().map(|width| Constraint::Length(*width)));
    frame.render_widget(table.header(titles(model, name, beside)), area);
    if trend {
        for (row, line) in rows[..shown].iter().zip(area.rows().skip(1)) {
            draw_trend(&row.trend, frame, Rect { x: area.x + WIDTHS_WITHOUT_TREND + 1, width: WIDTHS[6], ..line });
        }
    }
}

/// The names of the columns; the one that is sorted by is marked.
fn titles<'a>(model: &Model, name: &'a str, beside: &'a str) -> TableRow<'a> {
    let mark = if model.reversed { '^' } else { 'v' };
    let title = |text: &str, column| match model.sort == column {
        true => format!("{text}{mark}"),
        false => text.to_owned(),
    };
    TableRow::new([
        title(name, Column::Name),
        beside.to_owned(),
        right(&title("SENT", Column::Sent), WIDTHS[2]),
        right(&title("RECVD", Column::Received), WIDTHS[3]),
        right(&title("PACKETS", Column::Packets), WIDTHS[4]),
        right(&title("FAST", Column::Fast), WIDTHS[5]),
        "B/S".to_owned(),
    ])
    .style(Style::new().reversed())
}

fn cells(row: &Row) -> TableRow<'static> {
    let cells = TableRow::new([
        row.name.clone(),
        row.beside.clone(),
        right(&si(row.sent_bytes), WIDTHS[2]),
        right(&si(row.received_bytes), WIDTHS[3]),
        right(&si(row.packets), WIDTHS[4]),
        right(&percent(row.fast), WIDTHS[5]),
    ]);
    if row.one_way { cells.fg(Color::Yellow) } else { cells }
}

/// The text at the right end of a cell.
fn right(text: &str, width: u16) -> String {
    format!("{text:>width$}", width = usize::from(width))
}

/// The newest rate is at the right end.
fn draw_trend(trend: &Trend, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let newest = trend.iter().skip(trend.len().saturating_sub(width)).copied();
    let before = std::iter::repeat_n(0, width.saturating_sub(trend.len()));
    let data: Vec<u64> = before.chain(newest).collect();
    frame.render_widget(Sparkline::default().data(data).fg(Color::Green), area);
}

/// The drops in words, the most frequent first.
fn drops<'a>(status: &'a Status) -> Vec<Line<'a>> {
    let mut drops: Vec<_> = status.drops.iter().collect();
    drops.sort_by_key(|drops| std::cmp::Reverse((drops.rate, drops.packets)));
    let line = |drops: &&'a crate::status::Drops| {
        let colour = if drops.rate > 0 { Color::Yellow } else { Color::Reset };
        let text = format!("{:>7}/s {:>7}  {}: {}", si(drops.rate), si(drops.packets), drops.reason, drops.meaning);
        Line::from(text).fg(colour)
    };
    let title = match drops.len() {
        0 => "nothing dropped".to_owned(),
        n if n > DROPS => format!("DROPPED        ALL  REASON ({} more in `overlay status`)", n - DROPS),
        _ => "DROPPED        ALL  REASON".to_owned(),
    };
    let mut lines = vec![Line::from(title).reversed()];
    lines.extend(drops.iter().take(DROPS).map(line));
    lines
}

#[cfg(test)]
mod tests;
