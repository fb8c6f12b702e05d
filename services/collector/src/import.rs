//! A file into the intake.

use std::{path::Path, sync::Arc};

use domain::id::RunId;
use store::{
    intake::Dedupe,
    programs::OpenProgram,
    runs::{Counts, Origin, RunKind},
};
use tokio_util::sync::CancellationToken;

use crate::{
    intake::{CollectError, Intake, PAGES_WAITING, Run, Summary},
    source::{
        feed,
        file::{FileOptions, FileSource},
    },
};

/// How to import a file.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// How to read it.
    pub file: FileOptions,
    /// What to do with known leads.
    pub dedupe: Dedupe,
    /// The terms under which the data may be used.
    pub terms: Option<String>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { file: FileOptions::default(), dedupe: Dedupe::Skip, terms: None }
    }
}

/// Imports a file. Nothing is written when it isn't fit to be imported.
///
/// The same file twice, or again after a crash, adds nothing: known leads count as duplicates, and rows that were refused
/// before keep their one reject row. Accepted, updated, duplicates and rejected add up to the file's rows.
pub async fn import_file(
    intake: &Intake,
    program: Arc<OpenProgram>,
    path: &Path,
    options: &ImportOptions,
    cancel: &CancellationToken,
    progress: impl FnMut(&Counts),
) -> Result<Summary, CollectError> {
    let run_id = RunId::generate();
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let (path, file_options) = (path.to_owned(), options.file.clone());
    let source = tokio::task::spawn_blocking(move || FileSource::open(&path, &file_options))
        .await
        .map_err(|_| CollectError::Panicked { run: run_id })??;
    let run = Run {
        id: run_id,
        program,
        kind: RunKind::Import,
        source_digest: source.digest(),
        default_source: options.file.source.clone(),
        dedupe: options.dedupe,
        origin: Origin { file_name, terms: options.terms.clone() },
    };
    intake.take_all(&run, feed(source, PAGES_WAITING), cancel, progress).await
}
