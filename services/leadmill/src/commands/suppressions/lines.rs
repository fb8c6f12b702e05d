//! The lines of a file as text, in bounded memory whatever is in it.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use collector::source::encoding::TextStream;
use encoding_rs::Encoding;

use crate::settings::WrongUsage;

/// The longest line that can name somebody; an address has at most 254 characters.
const MOST_BYTES: usize = 2_000;

/// The lines of a file.
pub struct Lines {
    stream: TextStream,
    text: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    number: u64,
    ended: bool,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Its text, without white space around it.
    Text(String),
    /// It is no text in the file's encoding, or too long.
    Wrong(&'static str),
}

/// The encoding of that name.
///
/// # Errors
/// [`WrongUsage`] when there is none.
pub fn encoding(label: Option<&str>) -> Result<Option<&'static Encoding>, WrongUsage> {
    let Some(label) = label else { return Ok(None) };
    Encoding::for_label(label.as_bytes()).map(Some).ok_or_else(|| {
        WrongUsage("--encoding: not an encoding; name one such as utf-8, utf-16le or windows-1252".to_owned())
    })
}

impl Lines {
    /// Opens a file.
    pub fn open(path: &Path, encoding: Option<&'static Encoding>) -> anyhow::Result<Self> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).with_context(reading)?;
        if !file.metadata().with_context(reading)?.is_file() {
            return Err(WrongUsage(format!(
                "{} is not a regular file: it is read twice, first to check every line",
                path.display()
            ))
            .into());
        }
        let stream = TextStream::open(Box::new(file), encoding).with_context(reading)?;
        Ok(Self { stream, text: Vec::new(), at: 0, number: 0, ended: false })
    }

    /// The next line that isn't empty and no comment, with its number from 1.
    pub fn next(&mut self) -> std::io::Result<Option<(u64, Line)>> {
        loop {
            let Some(line) = self.next_of_any_kind()? else { return Ok(None) };
            match line {
                Line::Text(text) if text.is_empty() || text.starts_with('#') => {}
                line => return Ok(Some((self.number, line))),
            }
        }
    }

    fn next_of_any_kind(&mut self) -> std::io::Result<Option<Line>> {
        let mut too_long = false;
        loop {
            let rest = &self.text[self.at..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = parse(&rest[..length], too_long);
                self.at += length + 1;
                self.number += 1;
                return Ok(Some(line));
            }
            if self.ended {
                let line = (!rest.is_empty() || too_long).then(|| parse(rest, too_long));
                self.at = self.text.len();
                self.number += 1;
                return Ok(line);
            }
            // Nothing of a line that is too long is kept.
            too_long |= rest.len() > MOST_BYTES;
            let kept = if too_long { self.text.len() } else { self.at };
            self.text.drain(..kept);
            self.at = 0;
            self.ended = !self.stream.fill(&mut self.text)?;
        }
    }
}

fn parse(line: &[u8], too_long: bool) -> Line {
    if too_long || line.len() > MOST_BYTES {
        return Line::Wrong("longer than any address");
    }
    match std::str::from_utf8(line) {
        Ok(text) => Line::Text(text.trim().to_owned()),
        Err(_) => Line::Wrong("not in the file's encoding: name it, such as `--encoding windows-1252`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<(u64, Line)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines::open(&path, None).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn text(number: u64, text: &str) -> (u64, Line) {
        (number, Line::Text(text.to_owned()))
    }

    #[test]
    fn empty_lines_and_comments_are_left_out_and_counted() {
        let found = lines(b"\xEF\xBB\xBF# customers\r\n\r\nann@example.com\r\n  @bob \nexample.com");
        assert_eq!(found, [text(3, "ann@example.com"), text(4, "@bob"), text(5, "example.com")]);
    }

    #[test]
    fn a_line_in_another_encoding_is_named_and_the_next_is_read() {
        let found = lines(b"m\xFCller@example.com\nann@example.com\n");
        assert!(matches!(found[0], (1, Line::Wrong(why)) if why.contains("--encoding")), "{found:?}");
        assert_eq!(found[1], text(2, "ann@example.com"));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut bytes = vec![b'x'; 5_000_000];
        bytes.extend_from_slice(b"\nann@example.com\n");
        let found = lines(&bytes);
        assert!(matches!(found[0], (1, Line::Wrong(_))));
        assert_eq!(found[1], text(2, "ann@example.com"));
        assert!(matches!(lines(&vec![b'x'; 5_000_000])[..], [(1, Line::Wrong(_))]));
    }

    #[test]
    fn utf_16_is_read_as_well() {
        let units = "ann@example.com\nbob@example.com\n".encode_utf16();
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        assert_eq!(lines(&bytes), [text(1, "ann@example.com"), text(2, "bob@example.com")]);
    }
}
