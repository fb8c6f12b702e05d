//! Files: what they are is found out from their content, never from their name.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use domain::lead::SourceName;
use encoding_rs::Encoding;
use sha2::{Digest, Sha256};

use super::{
    PageSource, Row, SourceError, columns::Mapping, delimited::DelimitedSource, encoding::TextStream,
    jsonl::JsonLinesSource,
};

/// How to read a file.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// What columns mean, where their names don't tell.
    pub mappings: Vec<Mapping>,
    /// The network of rows that don't name one.
    pub source: Option<SourceName>,
    /// The encoding, as a label of <https://encoding.spec.whatwg.org>; found out when absent.
    pub encoding: Option<String>,
    /// The most bytes of a field.
    pub field_limit: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { mappings: Vec::new(), source: None, encoding: None, field_limit: 64 * 1024 }
    }
}

/// A file's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CSV or one of its relatives.
    Delimited,
    /// One JSON object a line.
    JsonLines,
}

/// An opened file, found fit to be imported.
pub struct FileSource {
    reader: Reader,
    digest: [u8; 32],
    bytes: u64,
}

enum Reader {
    Delimited(Box<DelimitedSource>),
    JsonLines(Box<JsonLinesSource>),
}

impl FileSource {
    /// Opens a file, finds out its format and checks its columns; reads it once in full for its digest. Blocking.
    pub fn open(path: &Path, options: &FileOptions) -> Result<Self, SourceError> {
        let shown = path.display().to_string();
        let failed = |source| SourceError::Read { path: shown.clone(), source };
        let file = || File::open(path).map_err(failed);
        let named = match &options.encoding {
            None => None,
            Some(label) => Some(
                Encoding::for_label(label.as_bytes())
                    .ok_or_else(|| SourceError::Encoding { label: label.chars().take(40).collect() })?,
            ),
        };
        let mut sample = Vec::new();
        let mut stream = TextStream::open(Box::new(file()?), named).map_err(failed)?;
        stream.fill(&mut sample).map_err(failed)?;
        let format = detect(&shown, &sample)?;
        let stream = TextStream::open(Box::new(file()?), named).map_err(failed)?;
        let reader = match format {
            Format::Delimited => Reader::Delimited(Box::new(DelimitedSource::open(&shown, stream, options)?)),
            Format::JsonLines => Reader::JsonLines(Box::new(JsonLinesSource::open(&shown, stream, options)?)),
        };
        let (digest, bytes) = digest(file()?).map_err(failed)?;
        Ok(Self { reader, digest, bytes })
    }

    /// SHA-256 of the content: the same file is the same file under any name.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The file's length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the file is.
    pub fn format(&self) -> Format {
        match self.reader {
            Reader::Delimited(_) => Format::Delimited,
            Reader::JsonLines(_) => Format::JsonLines,
        }
    }
}

impl PageSource for FileSource {
    fn next_page(&mut self) -> Result<Option<Vec<Row>>, SourceError> {
        match &mut self.reader {
            Reader::Delimited(source) => source.next_page(),
            Reader::JsonLines(source) => source.next_page(),
        }
    }
}

/// SHA-256 of a reader's bytes, and how many there are.
fn digest(mut reader: impl Read) -> io::Result<([u8; 32], u64)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 128 * 1024];
    let mut bytes = 0;
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok((hasher.finalize().into(), bytes)),
            Ok(read) => {
                hasher.update(&chunk[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Tells a file's format from its first bytes (as UTF-8), or what else it looks like.
pub fn detect(path: &str, sample: &[u8]) -> Result<Format, SourceError> {
    let refused = |found: &str| Err(SourceError::NotTabular { path: path.to_owned(), found: found.to_owned() });
    let text = sample.trim_ascii_start();
    if text.is_empty() {
        return Err(SourceError::Empty { path: path.to_owned() });
    }
    let begins = |magic: &[u8]| text.len() >= magic.len() && text[..magic.len()].eq_ignore_ascii_case(magic);
    if begins(b"PK\x03\x04") {
        return refused("it is a ZIP archive or an Excel workbook; save the sheet as CSV");
    }
    if begins(b"\xD0\xCF\x11\xE0") {
        return refused("it is an old Excel workbook; save the sheet as CSV");
    }
    if begins(b"%PDF") {
        return refused("it is a PDF");
    }
    if begins(b"\x1F\x8B") {
        return refused("it is compressed with gzip; unpack it first");
    }
    if begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") {
        return refused("it is HTML or XML; export the list as CSV");
    }
    let binary = text.iter().filter(|byte| **byte == 0 || (**byte < 32 && !b"\t\r\n\x0B\x0C".contains(byte))).count();
    if text.contains(&0) || binary * 20 > text.len() {
        return refused("it is binary, no text");
    }
    match text[0] {
        b'{' => Ok(Format::JsonLines),
        b'[' if text[1..].trim_ascii_start().first().is_none_or(|byte| b"{]".contains(byte)) => {
            refused("it is one JSON list; write one object a line (`jq -c '.[]' FILE`)")
        }
        _ => Ok(Format::Delimited),
    }
}
