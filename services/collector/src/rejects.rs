//! Refused rows as a file: what was wrong where, and the row itself.

use std::io::Write;

use domain::id::{RejectId, RunId};
use store::{Db, StoreError, programs::OpenProgram, rejects};

const PAGE: i64 = 1_000;

/// Why the refused rows can't be given back.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// They can't be read.
    #[error("reading the refused rows failed")]
    Read(#[from] StoreError),
    /// They can't be written.
    #[error("writing the file failed")]
    Write(#[from] csv::Error),
    /// They can't be written.
    #[error("writing the file failed")]
    Flush(#[from] std::io::Error),
}

/// Writes a program's refused rows as CSV, oldest first; of one run or of all. Returns how many.
///
/// The columns are `line`, `field`, `reason`, `detail` and `raw`. A cell that a spreadsheet would take for a formula gets
/// an apostrophe in front, the way OWASP advises against CSV injection.
pub async fn export(
    db: &Db,
    program: &OpenProgram,
    run: Option<RunId>,
    output: impl Write,
) -> Result<u64, ExportError> {
    let mut file = csv::Writer::from_writer(output);
    file.write_record(["line", "field", "reason", "detail", "raw"])?;
    let mut after: Option<RejectId> = None;
    let mut written = 0;
    loop {
        let keys = &program.keys;
        let page = db
            .transact("rejects.page", |tx, _| Box::pin(async move { rejects::page(tx, keys, run, after, PAGE).await }))
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for reject in &page {
            let raw = harmless(&String::from_utf8_lossy(&reject.raw));
            let line = reject.line.to_string();
            let [field, detail] = [&reject.field, &reject.detail].map(|text| harmless(text));
            file.write_record([line.as_str(), &field, &reject.reason, &detail, &raw])?;
            written += 1;
        }
    }
    file.flush()?;
    Ok(written)
}

/// A cell that no spreadsheet runs.
fn harmless(text: &str) -> String {
    let risky =
        text.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let text = text.replace('\0', "\u{FFFD}");
    if risky { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_like_a_formula() {
        for text in ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "＝1", "\n=1"] {
            assert!(harmless(text).starts_with('\''), "{text:?}");
        }
        assert_eq!(harmless("ann,a=b"), "ann,a=b");
    }
}
