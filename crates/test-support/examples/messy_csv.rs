//! Writes a CSV with every defect that files from strangers have, and prints what an import of it must come to.
//!
//! ```text
//! cargo run --package test-support --example messy_csv -- 200000 messy.csv
//! ```

use std::{env, io::Write as _, path::Path};

use anyhow::{Context as _, bail};
use test_support::messy;

/// The same rows each time.
const SEED: u64 = 5;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [rows, path] = arguments.as_slice() else { bail!("usage: messy_csv ROWS FILE") };
    let rows = rows.parse().with_context(|| format!("`{rows}` is no number of rows"))?;
    let expected = messy::generate(Path::new(path), rows, SEED).with_context(|| format!("writing {path}"))?;
    let told = serde_json::json!({
        "rows": expected.rows,
        "accepted": expected.accepted,
        "duplicates": expected.duplicates,
        "rejected": expected.rejected_total(),
        "reasons": expected.rejected,
    });
    writeln!(std::io::stdout(), "{told}").context("printing the counts")
}
