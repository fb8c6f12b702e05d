//! `leadmill keys`: master keys.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use vault::MasterKey;

use crate::output;

/// `leadmill keys …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a master key, under which everything personal is encrypted
    ///
    /// Keep a copy in a safe place, apart from the database: without the key nothing personal can be read again, by
    /// nobody. Services take it as LEADMILL_MASTER_KEY, or from the file that LEADMILL_MASTER_KEY_FILE names.
    #[command(after_help = "\
Examples:
  leadmill keys generate                        print it
  leadmill keys generate --out master.key       write it into a file that only you can read
  export LEADMILL_MASTER_KEY_FILE=$PWD/master.key")]
    Generate(Generate),
}

/// `leadmill keys generate`
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Write the key into this file, readable by its owner only; a file that is there already is never overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub fn run(command: &Command) -> anyhow::Result<()> {
    let Command::Generate(Generate { out, json }) = command;
    let key = MasterKey::generate();
    match out {
        None if *json => output::json(&serde_json::json!({ "id": key.id(), "key": *key.to_text() })),
        None => output::line(key.to_text().as_str()),
        Some(path) => {
            write(path, &key)?;
            if *json {
                return output::json(&serde_json::json!({ "id": key.id(), "file": path }));
            }
            output::line(format_args!("key {} written to {}", key.id(), path.display()))?;
            output::note("Keep a copy in a safe place: without it nothing personal can be read again.");
            output::note(format_args!("To use it: export LEADMILL_MASTER_KEY_FILE={}", path.display()));
            Ok(())
        }
    }
}

/// Writes a key into a new file that only its owner can read.
pub fn write(path: &Path, key: &MasterKey) -> anyhow::Result<()> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
            "{} exists already and is left as it is: what was encrypted under a key that is in there could never be read \
             again. Choose another name, or move that file away",
            path.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("writing {}", path.display())),
    };
    let text = key.to_text();
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}
