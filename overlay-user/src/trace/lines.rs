//! [`Lines`]: events as they come, each on a line, for people and for programs.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};
use etherparse::IpNumber;
use overlay_common::{Event, Step, Tuple};
use serde::Serialize;

use super::{packet::protocol, story};
use crate::{cli::Output, loader::LeftOut, map_dump::interface};

/// Where events are printed to.
pub(super) struct Lines {
    output: Output,
    rate: u32,
    /// The time of the first event.
    begin: Option<u64>,
    left_out: LeftOut,
    are_read: bool,
}

/// One event for programs.
#[derive(Serialize)]
struct Line {
    /// Nanoseconds since boot.
    time: u64,
    program: &'static str,
    step: String,
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    destination_port: u16,
    protocol: String,
    /// Of the packet as the program got it, with its Ethernet header.
    length: u32,
    text: String,
    /// The reason of a drop, as `DROPS` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Lines {
    pub(super) fn new(output: Output, rate: u32) -> Self {
        Self { output, rate, begin: None, left_out: LeftOut::default(), are_read: true }
    }

    /// Whether somebody still reads what is printed.
    pub(super) const fn are_read(&self) -> bool {
        self.are_read
    }

    /// Prints events. Those of a later version are left out.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn events(&mut self, events: &[Event]) -> Result<()> {
        let mut text = String::new();
        for line in events.iter().filter_map(Line::of) {
            let begin = *self.begin.get_or_insert(line.time);
            text += &match self.output {
                Output::Json => serde_json::to_string(&line)?,
                Output::Table => line.to_text(begin),
            };
            text.push('\n');
        }
        self.print(&text)
    }

    /// Says what was left out since this was asked last.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn left_out(&mut self, left_out: LeftOut) -> Result<()> {
        let suppressed = left_out.suppressed - self.left_out.suppressed;
        let lost = left_out.lost - self.left_out.lost;
        self.left_out = left_out;
        if (suppressed, lost) == (0, 0) {
            return Ok(());
        }
        let text = match self.output {
            Output::Json => serde_json::json!({ "suppressed_packets": suppressed, "lost_events": lost }).to_string(),
            Output::Table => {
                let rate = self.rate;
                let lost = if lost == 0 { String::new() } else { format!("; {lost} steps lost, printing is too slow") };
                format!("... {suppressed} packets more than --rate {rate} a second, not shown{lost}")
            }
        };
        self.print(&format!("{text}\n"))
    }

    fn print(&mut self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.are_read = false,
            written => written.context("write to standard output")?,
        }
        Ok(())
    }
}

impl Line {
    fn of(event: &Event) -> Option<Self> {
        let step = event.step()?;
        let tuple: &Tuple = &event.tuple;
        let ((source, source_port), (destination, destination_port)) = (tuple.source(), tuple.destination());
        Some(Self {
            time: event.time,
            program: event.program()?.name(),
            step: format!("{step:?}"),
            source,
            source_port,
            destination,
            destination_port,
            protocol: match tuple.protocol() {
                None => "no IP".to_owned(),
                Some(number) => protocol(IpNumber(number)),
            },
            length: event.length,
            text: match step {
                Step::Seen => format!("on {}, {} bytes", interface(event.value()), event.length),
                _ => story::sentence(event)?,
            },
            reason: story::reason(event).map(|reason| format!("{reason:?}")),
        })
    }

    fn to_text(&self, begin: u64) -> String {
        let since = self.time.saturating_sub(begin);
        let (seconds, micros) = (since / 1_000_000_000, since / 1000 % 1_000_000);
        let end = |address: IpAddr, port| match port {
            0 => address.to_string(),
            port => SocketAddr::new(address, port).to_string(),
        };
        let (source, destination) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        let Self { program, protocol, text, .. } = self;
        format!("{seconds:>4}.{micros:06} {program:<14} {source} -> {destination} {protocol}: {text}")
    }
}
