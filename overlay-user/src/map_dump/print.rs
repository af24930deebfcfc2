//! Prints entries as they come: as a table, as JSON, or as bytes.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::Value;

use super::Entry;
use crate::cli::MapOutput;

/// Rows of a table that are laid out together; later ones are at least as wide as those before.
const ROWS: usize = 1000;
/// Entries between two signs of progress.
const PROGRESS: u64 = 50_000;

/// Prints entries.
pub(super) struct Printer<'a> {
    form: MapOutput,
    to: BufWriter<&'a mut dyn Write>,
    printed: u64,
    /// Rows to lay out, with their keys.
    rows: Vec<(Vec<u8>, Value)>,
    widths: Vec<u16>,
    /// Whether somebody waits and sees nothing else.
    shows_progress: bool,
}

impl<'a> Printer<'a> {
    pub(super) fn new(form: MapOutput, to: &'a mut dyn Write) -> Self {
        let shows_progress = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self { form, to: BufWriter::new(to), printed: 0, rows: Vec::new(), widths: Vec::new(), shows_progress }
    }

    pub(super) fn print(&mut self, entry: Entry) -> io::Result<()> {
        match self.form {
            MapOutput::Raw => writeln!(self.to, "{} {}", Hex(&entry.raw.0), Hex(&entry.raw.1))?,
            MapOutput::Json => {
                self.to.write_all(if self.printed == 0 { b"[\n  " } else { b",\n  " })?;
                serde_json::to_writer(&mut self.to, &entry.fields)?;
            }
            MapOutput::Table => {
                self.rows.push((entry.raw.0, entry.fields));
                if self.rows.len() == ROWS {
                    self.lay_out()?;
                }
            }
        }
        self.printed += 1;
        if self.shows_progress && self.printed.is_multiple_of(PROGRESS) {
            eprint!("\r{} entries", self.printed);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.form {
            MapOutput::Table => self.lay_out()?,
            MapOutput::Json if self.printed == 0 => writeln!(self.to, "[]")?,
            MapOutput::Json => writeln!(self.to, "\n]")?,
            MapOutput::Raw => {}
        }
        if self.shows_progress && self.printed >= PROGRESS {
            eprintln!("\r{} entries", self.printed);
        }
        self.to.flush()
    }

    /// Prints the rows that have come together.
    fn lay_out(&mut self) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let Some(first) = self.rows.first().and_then(|(_, row)| row.as_object()) else { return Ok(()) };
        if self.widths.is_empty() {
            table.set_header(first.keys());
        }
        self.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        for row in self.rows.iter().filter_map(|(_, row)| row.as_object()) {
            table.add_row(row.values().map(cell));
        }
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
        }
        writeln!(self.to, "{}", table.trim_fmt())?;
        let padded = table.column_iter().zip(table.column_max_content_widths());
        let wider = padded.map(|(column, width)| width + column.padding_width());
        self.widths = wider.enumerate().map(|(n, width)| width.max(self.widths.get(n).copied().unwrap_or(0))).collect();
        self.rows.clear();
        Ok(())
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
    }
}
