//! `leadmill doctor`: what is configured, what answers, what is missing, what to do.

mod analyst;
mod checks;

use serde::Serialize;
use serde_json::json;
use service::config::{Document, Origin};

use crate::output;

/// `leadmill doctor`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Changes nothing. Exit status: 0 when nothing essential is missing, 1 otherwise.

Examples:
  leadmill doctor
  leadmill doctor --json | jq '.checks[] | select(.state != \"ok\")'")]
pub struct Args {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Also list the settings that nobody has changed
    #[arg(long)]
    all: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not needed by everybody, or works for now.
    Warning,
    /// Nothing works without it.
    Missing,
}

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), advice: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Missing, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Does what was asked for.
pub async fn run(document: &Document, args: &Args) -> anyhow::Result<()> {
    let checks = checks::all(document).await;
    let settings: Vec<_> = document
        .settings()
        .into_iter()
        .filter(|setting| args.all || !matches!(setting.origin, Origin::Defaults(_)))
        .collect();
    let missing = checks.iter().filter(|check| check.state == State::Missing).count();
    if args.json {
        let settings: Vec<_> = settings
            .iter()
            .map(|setting| json!({ "key": setting.key, "value": setting.value, "origin": setting.origin.to_string() }))
            .collect();
        output::json(&json!({ "ok": missing == 0, "checks": checks, "settings": settings }))?;
    } else {
        output::line("Configured")?;
        if settings.is_empty() {
            output::line("  nothing: every setting has its default (--all lists them)")?;
        }
        for setting in &settings {
            output::line(format_args!("  {} = {}   ({})", setting.key, setting.value, setting.origin))?;
        }
        output::line("\nChecked")?;
        for check in &checks {
            let mark = match check.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Missing => "MISSING",
            };
            output::line(format_args!("  {mark}  {:<15} {}", check.name, output::printable(&check.found)))?;
            if let Some(advice) = &check.advice {
                output::line(format_args!("           {:<15} → {}", "", output::printable(advice)))?;
            }
        }
    }
    match missing {
        0 => Ok(()),
        1 => anyhow::bail!("one essential thing is missing"),
        _ => anyhow::bail!("{missing} essential things are missing"),
    }
}
