//! [`Report`]: what a trace has found, for people and for programs.

use std::fmt::Write as _;

use overlay_common::{Event, Program};
use serde::Serialize;

use super::{outer::Outer, story};

/// What became of one packet, step by step.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The packet.
    packet: String,
    steps: Vec<Step>,
    /// Whether the packet leaves for the node that has its destination, or comes to a container here.
    pub(crate) arrives: bool,
    /// What becomes of it, in one line.
    result: String,
}

/// One step.
#[derive(Debug, Serialize)]
struct Step {
    /// The program that takes it, or `kernel`.
    at: &'static str,
    /// The name of the interface whose hook that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    text: String,
    /// The reason of a drop, as `DROPS` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The outer headers after encapsulation, or before decapsulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    outer: Option<Outer>,
}

impl Report {
    pub(super) fn new(packet: String) -> Self {
        Self { packet, steps: Vec::new(), arrives: false, result: String::new() }
    }

    /// Adds a program's steps on `interface`.
    pub(super) fn program(&mut self, program: Program, interface: &str, events: &[Event]) {
        let step = |event| {
            Some(Step {
                at: program.name(),
                interface: Some(interface.to_owned()),
                text: story::sentence(event)?,
                reason: story::reason(event).map(|reason| format!("{reason:?}")),
                outer: None,
            })
        };
        self.steps.extend(events.iter().filter_map(step));
    }

    /// Adds the outer headers that `at` has written or reads.
    pub(super) fn outer(&mut self, at: &'static str, outer: Outer) {
        let text = format!("outer packet {outer}");
        self.steps.push(Step { at, interface: None, text, reason: None, outer: Some(outer) });
    }

    /// Adds what the kernel would do.
    pub(super) fn kernel(&mut self, text: String) {
        self.steps.push(Step { at: "kernel", interface: None, text, reason: None, outer: None });
    }

    /// Length in bytes of the outer packet that was made last.
    pub(super) fn outer_length(&self) -> Option<usize> {
        self.steps.iter().rev().find_map(|step| step.outer.as_ref()).map(|outer| outer.length)
    }

    /// Says how it ends.
    pub(super) fn end(mut self, arrives: bool, result: impl Into<String>) -> Self {
        (self.arrives, self.result) = (arrives, result.into());
        self
    }

    /// The report for people: a line a step, the place only where it changes.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{:<15} {}\n", "packet", self.packet);
        let mut before = "";
        for step in &self.steps {
            if step.at != before {
                if let Some(interface) = &step.interface {
                    line(&mut text, step.at, &format!("on {interface}"));
                    line(&mut text, "", &step.text);
                } else {
                    line(&mut text, step.at, &step.text);
                }
                before = step.at;
            } else {
                line(&mut text, "", &step.text);
            }
        }
        line(&mut text, "result", &self.result);
        text.truncate(text.trim_end().len());
        text
    }
}

fn line(text: &mut String, at: &str, what: &str) {
    // Writing to a string does not fail.
    writeln!(text, "{at:<15} {what}").ok();
}
