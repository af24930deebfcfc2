//! What keys and columns are for, over everything else.

use ratatui::{
    Frame,
    layout::{Constraint, Flex, Layout},
    text::Text,
    widgets::{Block, Clear, Paragraph},
};

const HELP: &str = "\
SENT, RECVD   bytes a second: to and from peers, of inner packets;
              of a container all, also what stays on the node
PACKETS       packets a second, both ways
FAST          of those, per cent that took the fast path
B/S           bytes a second of the past, the newest at the right
yellow        packets went out and none has come in, ever
v or ^        sorted by this column, from its end with ^

s, Right      sort by the next column
r             reverse the order
p, Space      pause, and go on
h, ?          this help; Esc closes it
q, Esc, Ctrl-C  quit";

pub(super) fn draw(frame: &mut Frame<'_>) {
    let text = Text::raw(HELP);
    let height = u16::try_from(text.height() + 2).unwrap_or(u16::MAX);
    let width = u16::try_from(text.width() + 4).unwrap_or(u16::MAX);
    let [area] = Layout::vertical([Constraint::Max(height)]).flex(Flex::Center).areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Max(width)]).flex(Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" help ")), area);
}
