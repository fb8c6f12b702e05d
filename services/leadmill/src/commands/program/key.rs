//! `leadmill program key`: who may post leads over HTTP.

use anyhow::bail;
use clap::Subcommand;
use domain::clock::{Clock, SystemClock};
use domain::program::Slug;
use serde_json::json;
use service::config::Document;
use store::api_keys;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::find;
use crate::output::{self, Table};
use crate::settings;

/// `leadmill program key …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key; it is shown once and can't be had again
    #[command(after_help = "\
Example:
  key=$(leadmill program key create coffee --label website)
  curl -H \"Authorization: Bearer $key\" -H 'Content-Type: application/json' http://127.0.0.1:8081/v1/leads \\
    -d '{\"source\": \"instagram\", \"username\": \"ann\", \"email\": \"ann@example.com\"}'")]
    Create {
        /// The program's short name
        program: Slug,
        /// What the key is for
        #[arg(long, default_value = "")]
        label: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List a program's keys, without what makes them work
    List {
        /// The program's short name
        program: Slug,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key stop working
    Revoke {
        /// The program's short name
        program: Slug,
        /// The key's id, as `list` shows it
        id: Uuid,
    },
}

/// Does what was asked for.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    let db = settings::connect(document).await?;
    let now = SystemClock.now();
    match command {
        Command::Create { program, label, json } => {
            let program = find(&db, &program).await?.id;
            let label = label.as_str();
            let key =
                db.transact("api_key.create", |tx, _| Box::pin(api_keys::create(tx, program, label, now))).await?;
            if json { output::json(&json!({ "key": key, "label": label })) } else { output::line(key) }
        }
        Command::List { program, json } => {
            let program = find(&db, &program).await?.id;
            let keys = db.transact("api_key.list", |tx, _| Box::pin(api_keys::list(tx, program))).await?;
            if json {
                return output::json(&keys);
            }
            let mut table = Table::new(["ID", "LABEL", "CREATED", "STATE"]);
            for key in &keys {
                let state = if key.revoked_at.is_some() { "revoked" } else { "works" };
                table.row([key.id.to_string(), key.label.clone(), key.created_at.format(&Rfc3339)?, state.to_owned()]);
            }
            table.print()
        }
        Command::Revoke { program, id } => {
            let slug = program;
            let program = find(&db, &slug).await?.id;
            let revoked =
                db.transact("api_key.revoke", |tx, _| Box::pin(api_keys::revoke(tx, program, id, now))).await?;
            if !revoked {
                bail!("`{slug}` has no working key {id}; `leadmill program key list {slug}` shows them");
            }
            output::line(format_args!("{id} is revoked"))
        }
    }
}
