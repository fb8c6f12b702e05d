//! `leadmill migrate`: the one that migrates.

use anyhow::Context;
use service::config::{DatabaseConfig, Document};
use store::schema;

use crate::{output, settings};

/// `leadmill migrate`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Services never migrate by themselves; they refuse a schema that is older than they need. Uses DATABASE_DIRECT_URL when it
is set, since a transaction-mode pooler in between would break the lock that migrations hold.

Examples:
  leadmill migrate            apply what is missing; nothing happens when nothing is
  leadmill migrate --check    change nothing; exit status 1 unless this program can use the schema")]
pub struct Args {
    /// Change nothing, only say whether this program can use the schema
    #[arg(long)]
    check: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub async fn run(document: &Document, args: &Args) -> anyhow::Result<()> {
    if args.check {
        settings::connect(document).await?;
        let version = schema::newest_migration();
        if args.json {
            return output::json(&serde_json::json!({ "current": true, "version": version }));
        }
        return output::line(format_args!("the schema is current: migration {version}"));
    }
    let applied = apply(document).await?;
    if args.json {
        return output::json(&serde_json::json!({ "applied": applied, "version": schema::newest_migration() }));
    }
    for version in &applied {
        output::line(format_args!("applied {version}"))?;
    }
    match applied.len() {
        0 => output::line(format_args!("nothing to do: the schema is at migration {}", schema::newest_migration())),
        count => output::line(format_args!("{count} migrations applied")),
    }
}

/// Applies what is missing and returns the versions that were applied.
pub async fn apply(document: &Document) -> anyhow::Result<Vec<i64>> {
    let config: DatabaseConfig = document.section("database")?;
    // Before a connection is made: a URL that isn't one is wrong configuration.
    settings::database(document)?;
    let url = config.direct_url();
    let endpoint = url.endpoint();
    schema::migrate(url.expose()).await.with_context(|| {
        format!(
            "migrating {endpoint}: is PostgreSQL there, does the database exist, and may the account create tables?"
        )
    })
}
