//! CSV and its relatives: delimiter, line ends and header are found out from the content.

use domain::reject::RejectReason;

use super::{
    PAGE_ROWS, PageSource, RawProfile, Row, RowDefect, SourceError,
    columns::{Columns, Mapping},
    encoding::TextStream,
    file::FileOptions,
    kept,
    scanner::{Limits, Scanned, Scanner},
};

/// How much of the beginning is looked at.
const SAMPLE_BYTES: usize = 64 * 1024;

const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Rows of delimited text.
pub struct DelimitedSource {
    path: String,
    scanner: Scanner,
    columns: Columns,
    header: Vec<Vec<u8>>,
}

impl DelimitedSource {
    /// Reads the header and refuses columns from which no row could be accepted; no row is read yet.
    pub fn open(path: &str, stream: TextStream, options: &FileOptions) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Read { path: path.to_owned(), source };
        let limits = Limits { field: options.field_limit, ..Limits::default() };
        let mut scanner = Scanner::new(stream, limits);
        let sample = scanner.peek(SAMPLE_BYTES).map_err(failed)?.to_vec();
        let end_of_line = if sample.contains(&b'\n') || !sample.contains(&b'\r') { b'\n' } else { b'\r' };
        let delimiter = detect_delimiter(&sample, end_of_line, &options.mappings);
        scanner.set_dialect(delimiter, end_of_line);
        match scanner.advance().map_err(failed)? {
            Scanned::Row => {}
            Scanned::End => return Err(SourceError::Empty { path: path.to_owned() }),
            Scanned::Defect(defect) => {
                let found = format!("its first line is no header ({})", defect.defect.detail);
                return Err(SourceError::NotTabular { path: path.to_owned(), found });
            }
        }
        let header: Vec<Vec<u8>> = (0..scanner.fields()).map(|index| scanner.field(index).into_owned()).collect();
        let names = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        let columns = Columns::recognise(names, &options.mappings)?;
        columns.check(path, options.source.is_some())?;
        scanner.expect(header.len());
        Ok(Self { path: path.to_owned(), scanner, columns, header })
    }

    /// The columns, each with its meaning.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    fn row(&self) -> Row {
        match self.profile() {
            Ok(profile) => Row::Profile(Box::new(profile)),
            Err(defect) => Row::Defect(Box::new(defect)),
        }
    }

    fn profile(&self) -> Result<RawProfile, RowDefect> {
        let (line, raw) = (self.scanner.line(), self.scanner.raw());
        let (found, expected) = (self.scanner.fields(), self.header.len());
        // Some exports end each row, but not the header, with a delimiter.
        let trailing = found == expected + 1 && self.scanner.field(expected).is_empty();
        if found != expected && !trailing {
            let detail = format!("it has {found} fields, the header has {expected}");
            return Err(RowDefect::of_row(line, RejectReason::Malformed, detail, raw));
        }
        if (0..expected).all(|index| *self.scanner.field(index) == self.header[index]) {
            return Err(RowDefect::of_row(line, RejectReason::Malformed, "it is the header again", raw));
        }
        if std::str::from_utf8(raw).is_err() {
            return Err(self.encoding_defect(line, raw));
        }
        let mut profile = RawProfile { line, raw: kept(raw), ..RawProfile::default() };
        self.columns.fill(&mut profile, |column| {
            let bytes = self.scanner.field(column);
            let text = String::from_utf8_lossy(&bytes);
            (!text.trim().is_empty()).then(|| text.into_owned())
        });
        Ok(profile)
    }

    fn encoding_defect(&self, line: u64, raw: &[u8]) -> RowDefect {
        let column = (0..self.header.len()).find(|index| std::str::from_utf8(&self.scanner.field(*index)).is_err());
        let field = column.map_or("row", |column| self.columns.label(column));
        let encoding = self.scanner.encoding();
        let detail = if encoding == "UTF-8" {
            "it is not valid UTF-8 (an older spreadsheet may have saved the file as windows-1252: --encoding)"
                .to_owned()
        } else {
            format!("it is not valid {encoding}")
        };
        RowDefect::of_field(line, RejectReason::Encoding, field, detail, raw)
    }
}

impl PageSource for DelimitedSource {
    fn next_page(&mut self) -> Result<Option<Vec<Row>>, SourceError> {
        let mut page = Vec::with_capacity(PAGE_ROWS);
        while page.len() < PAGE_ROWS {
            let scanned =
                self.scanner.advance().map_err(|source| SourceError::Read { path: self.path.clone(), source })?;
            match scanned {
                Scanned::End => break,
                Scanned::Row => page.push(self.row()),
                Scanned::Defect(mut defect) => {
                    if let Ok(column) = defect.defect.field.parse() {
                        self.columns.label(column).clone_into(&mut defect.defect.field);
                    }
                    page.push(Row::Defect(defect));
                }
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

/// The delimiter under which the header has the most known columns, then the most columns.
fn detect_delimiter(sample: &[u8], end_of_line: u8, mappings: &[Mapping]) -> u8 {
    let score = |delimiter: u8| {
        let reader: Box<dyn std::io::Read + Send> = Box::new(std::io::Cursor::new(sample.to_vec()));
        // Only what is known to be UTF-8 comes here, so that no guess at the encoding may interfere.
        let Ok(stream) = TextStream::open(reader, Some(encoding_rs::UTF_8)) else { return (0, 0) };
        let mut scanner = Scanner::new(stream, Limits::default());
        scanner.set_dialect(delimiter, end_of_line);
        if !matches!(scanner.advance(), Ok(Scanned::Row)) {
            return (0, 0);
        }
        let names: Vec<String> = (0..scanner.fields())
            .map(|index| String::from_utf8_lossy(&scanner.field(index)).trim().to_owned())
            .collect();
        let count = names.len();
        let applicable: Vec<Mapping> =
            mappings.iter().filter(|mapping| names.contains(&mapping.column)).cloned().collect();
        (Columns::recognise(names, &applicable).map_or(0, |columns| columns.known()), count)
    };
    // `max_by_key` takes the last of equals; the comma is the usual one.
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| score(*delimiter)).unwrap_or(b',')
}
