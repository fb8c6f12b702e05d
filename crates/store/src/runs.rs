//! Collection runs: how an import, a simulation or a stretch of HTTP ingest went.

use domain::{
    id::{ProgramId, RunId},
    text,
};
use time::OffsetDateTime;
use vault::{Column, ProgramKeys};

use crate::{Connection, StoreError};

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// A file.
    Import,
    /// Made-up leads.
    Simulation,
    /// The HTTP ingest.
    Http,
}

impl RunKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Simulation => "simulation",
            Self::Http => "http",
        }
    }
}

/// What became of the rows of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// New leads.
    pub accepted: u64,
    /// Leads that were known and changed.
    pub updated: u64,
    /// Rows about a lead that was known and did not change.
    pub duplicates: u64,
    /// Rows that were refused.
    pub rejected: u64,
    /// Of these, the ones that no earlier run over the same source had refused.
    pub rejected_new: u64,
}

impl Counts {
    /// All rows.
    pub const fn rows(&self) -> u64 {
        self.accepted + self.updated + self.duplicates + self.rejected
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.updated += other.updated;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.rejected_new += other.rejected_new;
    }
}

/// Records that a run has begun.
pub async fn start(
    connection: &mut Connection,
    program: ProgramId,
    run: RunId,
    kind: RunKind,
    source_digest: Option<&[u8; 32]>,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO collection_runs (program_id, id, kind, source_digest, started_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
        program.as_uuid(),
        run.as_uuid(),
        kind.name(),
        source_digest.map(<[u8; 32]>::as_slice),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What all leads of a run have in common about where they come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file's name.
    pub file_name: Option<String>,
    /// The terms under which the data may be used, as the operator names them.
    pub terms: Option<String>,
}

/// The most characters of a run's terms, and of its file's name.
pub const ORIGIN_CHARS: usize = 500;

/// Records where the leads of a run come from.
pub async fn describe(
    connection: &mut Connection,
    keys: &ProgramKeys,
    run: RunId,
    origin: &Origin,
) -> Result<(), StoreError> {
    let cut = |text: &String| text::single_line(text, ORIGIN_CHARS);
    let sealed = |name: String| keys.rejects().seal_row(Column::RunFileName, run.as_uuid(), name.as_bytes());
    sqlx::query!(
        "UPDATE collection_runs SET file_name = $3, terms = $4 WHERE program_id = $1 AND id = $2",
        keys.program().as_uuid(),
        run.as_uuid(),
        origin.file_name.as_ref().and_then(cut).map(sealed),
        origin.terms.as_ref().and_then(cut),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds a batch's counts, in the transaction of the batch.
pub(crate) async fn add(
    connection: &mut Connection,
    program: ProgramId,
    run: RunId,
    counts: &Counts,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE collection_runs
         SET accepted = accepted + $3, updated = updated + $4, duplicates = duplicates + $5, rejected = rejected + $6,
             rejected_new = rejected_new + $7
         WHERE program_id = $1 AND id = $2",
        program.as_uuid(),
        run.as_uuid(),
        counts.accepted as i64,
        counts.updated as i64,
        counts.duplicates as i64,
        counts.rejected as i64,
        counts.rejected_new as i64,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Records that a run has come to its end.
pub async fn finish(
    connection: &mut Connection,
    program: ProgramId,
    run: RunId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE collection_runs SET finished_at = $3 WHERE program_id = $1 AND id = $2",
        program.as_uuid(),
        run.as_uuid(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
