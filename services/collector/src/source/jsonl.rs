//! JSON Lines (<https://jsonlines.org>): one object a line.

use domain::reject::{Defect, RejectReason};
use serde_json::{Map, Value};

use super::{
    PAGE_ROWS, PageSource, RawProfile, Row, RowDefect, SourceError, columns::Columns, encoding::TextStream,
    file::FileOptions, json, kept,
};

const SAMPLE_BYTES: usize = 64 * 1024;
const SAMPLE_LINES: usize = 20;

/// The most bytes of a line; a longer one is refused and passed over.
const LINE_BYTES: usize = 1024 * 1024;

/// Rows of JSON Lines.
pub struct JsonLinesSource {
    path: String,
    lines: Lines,
    options: FileOptions,
}

impl JsonLinesSource {
    /// Looks at the first lines and refuses a file that isn't one object a line, or has no known keys.
    pub fn open(path: &str, stream: TextStream, options: &FileOptions) -> Result<Self, SourceError> {
        let mut lines = Lines::new(stream);
        let sample = lines.peek(SAMPLE_BYTES).map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
        let whole = sample.len() < SAMPLE_BYTES;
        let mut objects: Vec<Map<String, Value>> = Vec::new();
        let mut pieces: Vec<&[u8]> = sample.split(|byte| *byte == b'\n').take(SAMPLE_LINES).collect();
        if !whole && pieces.len() > 1 && pieces.len() < SAMPLE_LINES {
            pieces.pop();
        }
        objects.extend(pieces.iter().filter_map(|line| serde_json::from_slice(line).ok()));
        if objects.is_empty() && (whole || pieces.len() > 1) {
            let found = "it begins like JSON, but none of its first lines is a whole object; write one object a line \
                         (`jq -c . FILE`, or `jq -c '.[]' FILE` for a list)";
            return Err(SourceError::NotTabular { path: path.to_owned(), found: found.to_owned() });
        }
        check_keys(path, &objects, options)?;
        Ok(Self { path: path.to_owned(), lines, options: options.clone() })
    }

    fn row(&self, line: &Line) -> Row {
        match self.profile(line) {
            Ok(profile) => Row::Profile(Box::new(profile)),
            Err(defect) => Row::Defect(Box::new(RowDefect { line: line.number, defect, raw: kept(&line.bytes) })),
        }
    }

    fn profile(&self, line: &Line) -> Result<RawProfile, Defect> {
        let of_row = |reason, detail: String| Defect { reason, field: "row".to_owned(), detail };
        if line.too_long {
            return Err(of_row(RejectReason::TooLarge, format!("it is larger than {} KiB", LINE_BYTES / 1024)));
        }
        let text = std::str::from_utf8(&line.bytes)
            .map_err(|_| of_row(RejectReason::Encoding, "it is not valid UTF-8".to_owned()))?;
        let value: Value = serde_json::from_str(text).map_err(|error| {
            of_row(RejectReason::Malformed, format!("it is not valid JSON at column {}", error.column()))
        })?;
        let Value::Object(object) = value else {
            return Err(of_row(RejectReason::Malformed, "it is JSON, but no object".to_owned()));
        };
        let profile = json::profile(&object, &self.options.mappings, self.options.field_limit)?;
        Ok(RawProfile { line: line.number, raw: kept(&line.bytes), ..profile })
    }
}

impl PageSource for JsonLinesSource {
    fn next_page(&mut self) -> Result<Option<Vec<Row>>, SourceError> {
        let mut page = Vec::with_capacity(PAGE_ROWS);
        while page.len() < PAGE_ROWS {
            let line = self.lines.next().map_err(|source| SourceError::Read { path: self.path.clone(), source })?;
            match line {
                Some(line) => page.push(self.row(&line)),
                None => break,
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

fn check_keys(path: &str, objects: &[Map<String, Value>], options: &FileOptions) -> Result<(), SourceError> {
    let mut names: Vec<String> = Vec::new();
    for object in objects {
        for key in json::keys(object) {
            if !names.contains(&key) {
                names.push(key);
            }
        }
        for mapping in &options.mappings {
            if json::has_key(object, &mapping.column) && !names.contains(&mapping.column) {
                names.push(mapping.column.clone());
            }
        }
    }
    // A first line that is too long to look at says nothing about the others.
    if objects.is_empty() {
        return Ok(());
    }
    Columns::recognise(names, &options.mappings)?.check(path, options.source.is_some())
}

/// A physical line.
struct Line {
    number: u64,
    bytes: Vec<u8>,
    too_long: bool,
}

/// Splits a stream into lines, in bounded memory.
struct Lines {
    stream: TextStream,
    buffer: Vec<u8>,
    at: usize,
    number: u64,
}

impl Lines {
    fn new(stream: TextStream) -> Self {
        Self { stream, buffer: Vec::new(), at: 0, number: 0 }
    }

    fn peek(&mut self, bytes: usize) -> std::io::Result<&[u8]> {
        while self.buffer.len() - self.at < bytes && self.stream.fill(&mut self.buffer)? {}
        Ok(&self.buffer[self.at..self.buffer.len().min(self.at + bytes)])
    }

    /// The next line that isn't blank.
    fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let Some(line) = self.physical()? else { return Ok(None) };
            if line.too_long || !line.bytes.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn physical(&mut self) -> std::io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let mut too_long = false;
        let mut found_any = false;
        loop {
            if self.at >= self.buffer.len() {
                self.buffer.clear();
                self.at = 0;
                if !self.stream.fill(&mut self.buffer)? {
                    break;
                }
            }
            found_any = true;
            let ahead = &self.buffer[self.at..];
            let end = ahead.iter().position(|byte| *byte == b'\n');
            let piece = &ahead[..end.unwrap_or(ahead.len())];
            let room = LINE_BYTES.saturating_sub(bytes.len());
            too_long |= piece.len() > room;
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            self.at += piece.len() + usize::from(end.is_some());
            if end.is_some() {
                break;
            }
        }
        if !found_any {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, bytes, too_long }))
    }
}
