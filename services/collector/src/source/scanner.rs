//! Splits delimited text (RFC 4180, leniently) into rows, in bounded memory, and survives every broken row.
//!
//! Two things make a plain CSV parser unfit for files from strangers. A quote that is opened and never closed would
//! swallow the rest of the file into one field; and a huge field would be held in memory whole. So a row is looked at
//! ahead up to [`Limits::lookahead`] bytes: when its quotes turn out not to make sense, only its first physical line is
//! given up, and reading goes on with the next line.

use std::{borrow::Cow, io, ops::Range};

use domain::reject::RejectReason;

use super::{KEPT_RAW_BYTES, RowDefect, encoding::TextStream};

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a field.
    pub field: usize,
    /// How far a row is followed, in bytes, before it is given up; bounds the memory.
    pub lookahead: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { field: 64 * 1024, lookahead: 12 * 1024 * 1024 }
    }
}

/// What comes next in the text.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned {
    /// A row; [`Scanner::field`] gives its fields.
    Row,
    /// Something that is no row.
    Defect(Box<RowDefect>),
    /// Nothing.
    End,
}

/// A field's place in the buffer, without its quotes.
#[derive(Debug, Clone)]
struct Span {
    range: Range<usize>,
    /// Whether doubled quotes stand for single ones.
    quoted: bool,
}

/// Why a row can't be followed to its end.
enum Trouble {
    /// A quote doesn't close where it should; the row spans lines, so the first is given up.
    Quote,
    /// The field is too large, and goes on up to here at least.
    TooLarge { at: usize },
}

/// Splits a text stream into rows.
pub struct Scanner {
    stream: TextStream,
    limits: Limits,
    delimiter: u8,
    end_of_line: u8,
    expected: Option<usize>,
    buffer: Vec<u8>,
    start: usize,
    next: usize,
    line: u64,
    lines_in_row: u64,
    spans: Vec<Span>,
}

impl Scanner {
    /// Starts at the stream's beginning, line 1.
    pub fn new(stream: TextStream, limits: Limits) -> Self {
        Self {
            stream,
            limits,
            delimiter: b',',
            end_of_line: b'\n',
            expected: None,
            buffer: Vec::new(),
            start: 0,
            next: 0,
            line: 1,
            lines_in_row: 0,
            spans: Vec::new(),
        }
    }

    /// The text ahead, up to `bytes` or the end.
    pub fn peek(&mut self, bytes: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.next < bytes && self.stream.fill(&mut self.buffer)? {}
        let end = self.buffer.len().min(self.next + bytes);
        Ok(&self.buffer[self.next..end])
    }

    /// Sets how rows are split; before the first row.
    pub fn set_dialect(&mut self, delimiter: u8, end_of_line: u8) {
        self.delimiter = delimiter;
        self.end_of_line = end_of_line;
    }

    /// Sets how many fields a row must have: a row over several lines with another number is taken for a broken quote.
    pub fn expect(&mut self, fields: usize) {
        self.expected = Some(fields);
    }

    /// The name of the stream's encoding.
    pub fn encoding(&self) -> &'static str {
        self.stream.encoding()
    }

    /// The physical line where the current row starts, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The current row's bytes.
    pub fn raw(&self) -> &[u8] {
        trim_end(&self.buffer[self.start..self.next])
    }

    /// How many fields the current row has.
    pub fn fields(&self) -> usize {
        self.spans.len()
    }

    /// A field of the current row, without its quotes.
    pub fn field(&self, index: usize) -> Cow<'_, [u8]> {
        let Span { range, quoted } = &self.spans[index];
        let bytes = &self.buffer[range.clone()];
        if !*quoted || !bytes.windows(2).any(|pair| pair == b"\"\"") {
            return Cow::Borrowed(bytes);
        }
        let mut plain = Vec::with_capacity(bytes.len());
        let mut skip = false;
        for byte in bytes {
            let second_quote = *byte == b'"' && skip;
            skip = *byte == b'"' && !skip;
            if !second_quote {
                plain.push(*byte);
            }
        }
        Cow::Owned(plain)
    }

    /// Goes on to the next row; empty lines are passed over.
    pub fn advance(&mut self) -> io::Result<Scanned> {
        loop {
            self.line += self.lines_in_row;
            self.start = self.next;
            self.lines_in_row = 0;
            self.compact();
            self.spans.clear();
            if self.byte(self.start)?.is_none() {
                return Ok(Scanned::End);
            }
            match self.scan()? {
                Ok(()) if self.raw().is_empty() => {}
                Ok(()) => return self.check(),
                Err(Trouble::Quote) => return self.give_up_line(),
                Err(Trouble::TooLarge { at }) => return self.skip_line(at),
            }
        }
    }

    /// Follows the row from `start` to its end.
    fn scan(&mut self) -> io::Result<Result<(), Trouble>> {
        let mut at = self.start;
        loop {
            let quoted = self.byte(at)? == Some(b'"');
            let end = if quoted { self.quoted(at + 1)? } else { self.unquoted(at)? };
            let end = match end {
                Ok(end) => end,
                Err(trouble) => return Ok(Err(trouble)),
            };
            match self.byte(end)? {
                Some(byte) if byte == self.delimiter => at = end + 1,
                Some(_) => {
                    self.lines_in_row += 1;
                    self.next = end + 1;
                    return Ok(Ok(()));
                }
                None => {
                    self.next = end;
                    return Ok(Ok(()));
                }
            }
        }
    }

    /// An unquoted field; returns where its delimiter or line end stands.
    fn unquoted(&mut self, from: usize) -> io::Result<Result<usize, Trouble>> {
        let mut at = from;
        loop {
            let (delimiter, end_of_line) = (self.delimiter, self.end_of_line);
            let ahead = self.buffer.get(at..).unwrap_or_default();
            if let Some(found) = ahead.iter().position(|byte| *byte == delimiter || *byte == end_of_line) {
                at += found;
                break;
            }
            at = self.buffer.len();
            if at - from > self.limits.field {
                return Ok(Err(Trouble::TooLarge { at }));
            }
            if self.byte(at)?.is_none() {
                break;
            }
        }
        let mut end = at;
        if self.buffer.get(at) != Some(&self.delimiter) && end > from && self.buffer[end - 1] == b'\r' {
            end -= 1;
        }
        self.spans.push(Span { range: from..end, quoted: false });
        Ok(Ok(at))
    }

    /// A quoted field, after its opening quote; returns where its delimiter or line end stands.
    fn quoted(&mut self, from: usize) -> io::Result<Result<usize, Trouble>> {
        let mut at = from;
        let mut lines = 0;
        loop {
            let end_of_line = self.end_of_line;
            let ahead = self.buffer.get(at..).unwrap_or_default();
            let Some(found) = ahead.iter().position(|byte| *byte == b'"' || *byte == end_of_line) else {
                at = self.buffer.len();
                if at - self.start > self.limits.lookahead {
                    return Ok(Err(self.overrun(lines, at)));
                }
                if self.byte(at)?.is_none() {
                    return Ok(Err(Trouble::Quote));
                }
                continue;
            };
            at += found;
            if self.buffer[at] == end_of_line {
                lines += 1;
                at += 1;
                if at - self.start > self.limits.lookahead {
                    return Ok(Err(self.overrun(lines, at)));
                }
                continue;
            }
            if self.byte(at + 1)? == Some(b'"') {
                at += 2;
                continue;
            }
            if let Some(end) = self.closes(at + 1)? {
                self.lines_in_row += lines;
                self.spans.push(Span { range: from..at, quoted: true });
                return Ok(Ok(end));
            }
            if lines > 0 {
                return Ok(Err(Trouble::Quote));
            }
            // On the line where the field began, a stray quote is taken as it stands.
            at += 1;
        }
    }

    /// Where the delimiter or line end after a closing quote stands, if that is what follows.
    fn closes(&mut self, after: usize) -> io::Result<Option<usize>> {
        let mut at = after;
        loop {
            match self.byte(at)? {
                None => return Ok(Some(at)),
                Some(byte) if byte == self.delimiter || byte == self.end_of_line => return Ok(Some(at)),
                Some(b'\r' | b' ') if at - after < 16 => at += 1,
                Some(_) => return Ok(None),
            }
        }
    }

    /// A quoted field that goes on and on: over several lines it is a quote that isn't closed, else a huge field.
    fn overrun(&mut self, lines: u64, at: usize) -> Trouble {
        if lines > 0 || self.lines_in_row > 0 {
            // The next one isn't followed as far: a file full of such rows must not be read over and over.
            self.limits.lookahead = (self.limits.lookahead / 2).max(self.limits.field * 2);
            Trouble::Quote
        } else {
            Trouble::TooLarge { at }
        }
    }

    /// Judges a row that was followed to its end.
    fn check(&mut self) -> io::Result<Scanned> {
        if let Some(index) = self.spans.iter().position(|span| span.range.len() > self.limits.field) {
            let mut defect = self.too_large(self.raw());
            // The caller knows the columns' names; it is told the position.
            defect.defect.field = index.to_string();
            return Ok(Scanned::Defect(Box::new(defect)));
        }
        let several_lines = self.lines_in_row > 1;
        if several_lines && self.expected.is_some_and(|expected| expected != self.spans.len()) {
            return self.give_up_line();
        }
        Ok(Scanned::Row)
    }

    /// Gives up the row's first physical line and goes on behind it.
    fn give_up_line(&mut self) -> io::Result<Scanned> {
        let mut at = self.start;
        while self.byte(at)?.is_some_and(|byte| byte != self.end_of_line) {
            at += 1;
            if at - self.start > self.limits.lookahead {
                return self.skip_line(at);
            }
        }
        self.next = (at + 1).min(self.buffer.len());
        self.lines_in_row = 1;
        let detail = "a quote is opened and not closed, or closed in the middle of a field";
        Ok(Scanned::Defect(Box::new(RowDefect::of_row(self.line, RejectReason::Malformed, detail, self.raw()))))
    }

    /// Passes over the rest of a line without keeping it.
    fn skip_line(&mut self, from: usize) -> io::Result<Scanned> {
        let mut defect = self.too_large(&self.buffer[self.start..from.min(self.buffer.len())]);
        defect.defect.field = self.spans.len().to_string();
        self.buffer.drain(..from.min(self.buffer.len()));
        self.start = 0;
        self.next = 0;
        self.lines_in_row = 1;
        loop {
            if let Some(found) = self.buffer.iter().position(|byte| *byte == self.end_of_line) {
                self.next = found + 1;
                break;
            }
            self.buffer.clear();
            if !self.stream.fill(&mut self.buffer)? {
                break;
            }
        }
        self.buffer.shrink_to(KEPT_RAW_BYTES);
        Ok(Scanned::Defect(Box::new(defect)))
    }

    fn too_large(&self, raw: &[u8]) -> RowDefect {
        let detail = format!("it is larger than {} KiB", self.limits.field / 1024);
        RowDefect::of_row(self.line, RejectReason::TooLarge, detail, raw)
    }

    /// The byte at a position; reads on when needed.
    fn byte(&mut self, at: usize) -> io::Result<Option<u8>> {
        while at >= self.buffer.len() {
            if !self.stream.fill(&mut self.buffer)? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer[at]))
    }

    /// Forgets what was read, now and then.
    fn compact(&mut self) {
        const WORTH_IT: usize = 512 * 1024;
        if self.start >= WORTH_IT || self.start == self.buffer.len() {
            self.buffer.drain(..self.start);
            self.next -= self.start;
            self.start = 0;
            if self.buffer.capacity() > 4 * WORTH_IT {
                self.buffer.shrink_to(WORTH_IT);
            }
        }
    }
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scanner(text: &[u8], limits: Limits) -> Scanner {
        let stream = TextStream::open(Box::new(io::Cursor::new(text.to_vec())), None).unwrap();
        Scanner::new(stream, limits)
    }

    /// All rows as `line: a|b`, defects as `line: !reason`.
    fn rows_with(text: &[u8], limits: Limits, expected: usize) -> Vec<String> {
        let mut scanner = scanner(text, limits);
        scanner.expect(expected);
        let mut rows = Vec::new();
        loop {
            match scanner.advance().unwrap() {
                Scanned::End => return rows,
                Scanned::Defect(defect) => rows.push(format!("{}: !{}", defect.line, defect.defect.reason.name())),
                Scanned::Row => {
                    let fields: Vec<String> = (0..scanner.fields())
                        .map(|index| String::from_utf8_lossy(&scanner.field(index)).into_owned())
                        .collect();
                    rows.push(format!("{}: {}", scanner.line(), fields.join("|")));
                }
            }
        }
    }

    fn rows(text: &str, expected: usize) -> Vec<String> {
        rows_with(text.as_bytes(), Limits::default(), expected)
    }

    #[test]
    fn quotes_line_ends_and_empty_lines_are_understood() {
        let text = "a,b\r\n\r\n\"x, y\",\"say \"\"hi\"\"\"\n1,\"two\nlines\"\nlast,\n";
        assert_eq!(rows(text, 2), ["1: a|b", "3: x, y|say \"hi\"", "4: 1|two\nlines", "6: last|"]);
        assert_eq!(rows("a,b\nno,end", 2), ["1: a|b", "2: no|end"]);
        assert_eq!(rows("a,\"\"\n", 2), ["1: a|"]);
    }

    #[test]
    fn stray_quotes_on_one_line_are_text() {
        assert_eq!(
            rows("\"Ann \"the\" baker\",x\n5\" pots,y\n\"z\" ,w\n", 2),
            ["1: Ann \"the\" baker|x", "2: 5\" pots|y", "3: z|w"]
        );
    }

    #[test]
    fn an_unclosed_quote_costs_one_line() {
        let text = "a,\"b\nc,d\ne,\"f\"\ng,h\n";
        assert_eq!(rows(text, 2), ["1: !malformed", "2: c|d", "3: e|f", "4: g|h"]);
        assert_eq!(rows("a,\"b\nc,d\n", 2), ["1: !malformed", "2: c|d"], "at the end of the file");
        assert_eq!(rows("a,\"b\nc,d\n\",x,\n", 2), ["1: !malformed", "2: c|d", "3: !malformed"]);
    }

    #[test]
    fn an_unclosed_quote_is_not_followed_for_ever() {
        let limits = Limits { field: 100, lookahead: 1_000 };
        let text = format!("a,\"b\n{}", "c,d\n".repeat(1_000));
        let rows = rows_with(text.as_bytes(), limits, 2);
        assert_eq!(rows.len(), 1_001);
        assert_eq!(rows[0], "1: !malformed");
        assert_eq!(rows[1_000], "1001: c|d");
    }

    #[test]
    fn a_huge_field_is_refused_and_the_rest_goes_on() {
        let huge = "x".repeat(3_000_000);
        let limits = Limits { field: 1_000, lookahead: 1_000_000 };
        for field in [huge.clone(), format!("\"{huge}\""), format!("\"{}\"", &huge[..500_000])] {
            let text = format!("a,b\n1,{field}\n2,c\n");
            assert_eq!(rows_with(text.as_bytes(), limits, 2), ["1: a|b", "2: !too_large", "3: 2|c"]);
        }
        let lines = format!("a,b\n1,\"{}\"\n2,c\n", "line\n".repeat(1_000));
        assert_eq!(rows_with(lines.as_bytes(), limits, 2), ["1: a|b", "2: !too_large", "1003: 2|c"]);
    }

    #[test]
    fn a_huge_field_is_not_kept() {
        let limits = Limits { field: 1_000, lookahead: 2_000_000 };
        let text = format!("1,{}\n2,c\n", "x".repeat(20_000_000));
        let mut scanner = scanner(text.as_bytes(), limits);
        let Scanned::Defect(defect) = scanner.advance().unwrap() else { panic!("taken") };
        assert_eq!(defect.defect.field, "1");
        assert_eq!(defect.raw.len(), KEPT_RAW_BYTES);
        assert!(scanner.buffer.capacity() < 4_000_000);
    }

    proptest! {
        #[test]
        fn what_was_written_as_csv_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-z ,\"\r\n;é]{0,12}", 3), 1..12)
        ) {
            let mut text = String::new();
            for row in &rows {
                let cells: Vec<String> = row.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
                text.push_str(&cells.join(","));
                text.push('\n');
            }
            let mut scanner = scanner(text.as_bytes(), Limits::default());
            scanner.expect(3);
            for row in &rows {
                prop_assert_eq!(scanner.advance().unwrap(), Scanned::Row);
                for (index, cell) in row.iter().enumerate() {
                    prop_assert_eq!(scanner.field(index), cell.as_bytes());
                }
            }
            prop_assert_eq!(scanner.advance().unwrap(), Scanned::End);
        }

        #[test]
        fn any_bytes_are_read_to_the_end_and_lines_only_rise(
            text in prop::collection::vec(prop::sample::select(&b"ab,\"\n\r;\xFF"[..]), 0..400)
        ) {
            let mut scanner = scanner(&text, Limits { field: 20, lookahead: 60 });
            scanner.expect(2);
            let lines = text.split(|byte| *byte == b'\n').count() as u64 - 1;
            let mut last = 0;
            let mut rows = 0;
            loop {
                let line = match scanner.advance().unwrap() {
                    Scanned::End => break,
                    Scanned::Defect(defect) => defect.line,
                    Scanned::Row => scanner.line(),
                };
                prop_assert!(line > last);
                prop_assert!(line <= lines + 1);
                last = line;
                rows += 1;
                prop_assert!(rows <= lines + 1);
            }
        }
    }
}
