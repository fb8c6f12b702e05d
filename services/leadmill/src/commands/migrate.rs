//! `leadmill migrate`: creates or updates the database's schema.

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use service::config::{DatabaseConfig, Document};
use store::{
    Db,
    schema::{self, AppliedMigration, MigrationError, MigrationReport, MigrationSettings, RebuiltIndex},
};

use crate::{output, settings};

/// `leadmill migrate`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Services never migrate by themselves; they refuse a schema that is older than they need. Uses
DATABASE_DIRECT_URL when it is set: the lock that keeps two migrations apart belongs to a session,
which a transaction-mode pooler doesn't give.

Services of the previous version may run meanwhile:
  - A migration waits at most 2 s for a lock, since others queue up behind it. If it doesn't get
    it, it lets go of everything and tries again, up to --max-wait. It names who holds the lock.
  - Indexes on existing tables are built concurrently: no read or write waits for them.
  - It can be interrupted at any time and run again. The next run rebuilds an index whose build was
    cut short and which is INVALID since; `leadmill doctor` and `migrate --check` name those.
  - Two of them at once are no problem: the second waits until the first has ended.
For each migration it says how long it took, and how long at most others may have waited for it.

Examples:
  leadmill migrate                apply what is missing; nothing happens when nothing is
  leadmill migrate --max-wait 60  fail if a lock isn't free for a minute, such as in a pipeline
  leadmill migrate --check        change nothing; exit status 1 unless the schema can be used")]
pub struct Args {
    /// Change nothing, only say whether this program can use the schema
    #[arg(long)]
    check: bool,
    /// How long to wait for another migration to end, and how long to go on trying for the locks of one
    #[arg(long, value_name = "SECONDS", default_value_t = 600, conflicts_with = "check")]
    max_wait: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Applies what is missing, or only checks, and prints the result.
pub async fn run(document: &Document, args: &Args) -> anyhow::Result<()> {
    if args.check {
        return check(&settings::connect(document).await?, args.json).await;
    }
    let limit = Duration::from_secs(args.max_wait);
    let limits = MigrationSettings { step_limit: limit, other_run_limit: limit, ..MigrationSettings::default() };
    let report = apply(document, limits).await?;
    let version = schema::newest_migration();
    if args.json {
        let versions: Vec<i64> = report.applied.iter().map(|migration| migration.version).collect();
        let migrations: Vec<_> = report.applied.iter().map(applied_json).collect();
        let rebuilt: Vec<_> = report.rebuilt.iter().map(rebuilt_json).collect();
        return output::json(&json!({
            "applied": versions, "migrations": migrations, "rebuilt_indexes": rebuilt, "version": version,
        }));
    }
    for migration in &report.applied {
        output::line(format_args!("applied {migration}"))?;
    }
    for index in &report.rebuilt {
        output::line(format_args!("rebuilt {index}"))?;
    }
    if report.applied.is_empty() && report.rebuilt.is_empty() {
        return output::line(format_args!("nothing to do: the schema is at migration {version}"));
    }
    output::line(format_args!("the schema is at migration {version}; migrations applied: {}", report.applied.len()))
}

async fn check(db: &Db, as_json: bool) -> anyhow::Result<()> {
    let version = schema::newest_migration();
    let invalid = db.transact("schema.invalid_indexes", |tx, _| Box::pin(schema::invalid_indexes(tx))).await?;
    if as_json {
        return output::json(&json!({ "current": true, "version": version, "invalid_indexes": invalid }));
    }
    output::line(format_args!("the schema is current: migration {version}"))?;
    for index in invalid {
        output::line(format_args!("index {index} is INVALID: no query uses it; `leadmill migrate` builds it again"))?;
    }
    Ok(())
}

fn applied_json(migration: &AppliedMigration) -> serde_json::Value {
    json!({
        "version": migration.version,
        "description": migration.description,
        "concurrently": migration.concurrently,
        "duration_ms": milliseconds(migration.duration),
        "tries": migration.tries,
        "longest_lock_ms": milliseconds(migration.longest_lock),
        "locks": migration.locks,
    })
}

fn rebuilt_json(index: &RebuiltIndex) -> serde_json::Value {
    json!({ "name": index.name, "duration_ms": milliseconds(index.duration) })
}

/// Milliseconds to a tenth of one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Applies what is missing and says on standard error what it waits for.
pub async fn apply(document: &Document, limits: MigrationSettings) -> anyhow::Result<MigrationReport> {
    let config: DatabaseConfig = document.section("database")?;
    // Before a connection is made: a URL that isn't one is wrong configuration.
    settings::database(document)?;
    let url = config.direct_url();
    let endpoint = url.endpoint();
    let result =
        schema::migrate(url.expose(), limits, &mut |progress| output::note(output::printable(&progress.to_string())))
            .await;
    let needs_connection = matches!(result, Err(MigrationError::Connect(_) | MigrationError::Failed { .. }));
    result.with_context(|| {
        let hint = if needs_connection {
            ": is PostgreSQL there, does the database exist, and may the account create tables?"
        } else {
            ""
        };
        format!("migrating {endpoint}{hint}")
    })
}
