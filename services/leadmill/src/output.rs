//! Printing: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Whoever read the output has enough (`leadmill mail list | head`): the command ends, and that is no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct ReaderGone;

/// What went wrong while something was printed by way of a writer.
pub fn while_printing(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    let nobody_reads = error.chain().filter_map(|cause| cause.downcast_ref()).any(is_broken_pipe);
    if nobody_reads { ReaderGone.into() } else { error }
}

/// Prints bytes as they are.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

/// Prints a line.
pub fn line(text: impl Display) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints a value for scripts, indented: it is valid JSON all the same.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Tells a person something beside the result. Where standard error is closed there is nobody to tell.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// A table whose rows explain themselves.
    pub fn headless() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row. Control characters, which could play tricks on a terminal, are replaced.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)).to_vec());
    }

    /// Prints it.
    pub fn print(&self) -> anyhow::Result<()> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Text of strangers, made harmless for a terminal: no escape sequences, no line breaks.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// Text of several lines, made harmless for a terminal.
pub fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_has_enough_is_told_from_a_failure() {
        let failed = |kind| while_printing(csv_like(io::Error::from(kind)));
        assert!(failed(io::ErrorKind::BrokenPipe).is::<ReaderGone>());
        assert!(!failed(io::ErrorKind::StorageFull).is::<ReaderGone>());
    }

    /// What a writer makes of an error: one with the error as its source.
    fn csv_like(source: io::Error) -> anyhow::Error {
        anyhow::Error::new(source).context("writing the file failed")
    }

    #[test]
    fn no_text_of_a_stranger_reaches_the_terminals_controls() {
        assert_eq!(printable("a\x1b[2Jb\r\n"), "a\u{FFFD}[2Jb\u{FFFD}\u{FFFD}");
        assert_eq!(printable_lines("a\nb\x07"), "a\nb\u{FFFD}");
    }
}
