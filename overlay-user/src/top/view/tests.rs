use anyhow::anyhow;
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{status::Drops, top::sample_rates::rates};

/// The lines that a model looks like, without what is empty at their ends.
fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(model, frame)).expect("a picture");
    let cells = terminal.backend().buffer().content();
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    cells.chunks(usize::from(width).max(1)).map(|cells| line(cells).trim_end().to_owned()).collect()
}

fn model(peers: &[(u8, u64, u64)]) -> Model {
    let mut model = Model::default();
    model.learn(Ok(rates(peers)));
    model
}

fn dropped(reason: &str, packets: u64) -> Drops {
    Drops { reason: reason.to_owned(), packets, rate: packets, meaning: "in words", hint: "look" }
}

#[test]
fn everything_has_its_place_on_80_columns_and_24_lines() {
    let mut model = model(&[(1, 1_500, 12), (2, 3_000_000, 0)]);
    model.status.as_mut().expect("a status").drops = vec![dropped("NoRoute", 3)];
    let lines = drawn(&model, 80, 24);
    assert_eq!(lines[0], "overlay top  10.1.9.0/24  eth0 192.168.50.9  vxlan");
    assert!(lines[1].starts_with("sent 3M B/s  received 12 B/s  fast path 50%  dropped 3/s"), "{}", lines[1]);
    assert_eq!(lines[2], "no agent runs");
    assert_eq!(lines[3], "PEER               NODE               SENTv    RECVD   PACKETS FAST B/S");
    let peer = "10.1.2.0/24        192.168.50.2          3M        0         2  50%            █";
    assert_eq!(lines[4], peer);
    assert_eq!(lines[5].chars().last(), Some('█'));
    let containers = lines.iter().position(|line| line.starts_with("CONTAINER")).expect("containers");
    assert!(lines[containers + 1].starts_with("10.1.9.3           veth3                 3M        0"), "{lines:?}");
    assert_eq!(lines[21], "DROPPED        ALL  REASON");
    assert_eq!(lines[22], "      3/s       3  NoRoute: in words");
    assert_eq!(lines[23], KEYS);
}

#[test]
fn of_more_than_there_is_room_for_the_number_is_said() {
    let all: Vec<_> = (1..=100).map(|number| (number, 1, 1)).collect();
    let mut model = model(&all);
    let drops = ["A", "B", "C", "D", "E", "F"].map(|reason| dropped(reason, 1));
    model.status.as_mut().expect("a status").drops = drops.into();
    let lines = drawn(&model, 80, 24);
    let more = lines.iter().filter(|line| line.ends_with(" more"));
    let shown = lines.iter().filter(|line| line.starts_with("10.1.")).count();
    let hidden: usize = more.filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(shown + hidden, 200, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("2 more in `overlay status`")), "{lines:?}");
}

#[test]
fn no_terminal_is_too_small_or_too_large() {
    let mut model = model(&[(1, 1, 1), (2, 3, 3)]);
    for help in [false, true] {
        model.help = help;
        for width in [0, 1, 20, 66, 79, 300] {
            for height in [0, 1, 2, 5, 6, 10, 100] {
                drawn(&model, width, height);
            }
        }
    }
}

#[test]
fn the_sorted_column_a_pause_and_what_cannot_be_read_are_marked() {
    let mut model = model(&[(1, 1, 1)]);
    model.learn(Err(anyhow!("no data path")));
    (model.paused, model.reversed, model.sort) = (true, true, Column::Name);
    let lines = drawn(&model, 80, 24);
    assert!(lines[0].ends_with("PAUSED"), "{lines:?}");
    assert_eq!(lines[2], "not read any more: no data path");
    assert!(lines[3].starts_with("PEER^ "), "{lines:?}");
}

#[test]
fn help_covers_the_rest() {
    let mut model = model(&[(1, 1, 1)]);
    model.help = true;
    let lines = drawn(&model, 80, 24);
    assert!(lines.iter().any(|line| line.contains("reverse the order")), "{lines:?}");
}
