//! `leadmill dead`: messages that no stage could handle.

use anyhow::bail;
use broker::{Admin, BrokerError, DeadInfo, DeadSelector};
use clap::Subcommand;
use domain::event::Queue;
use serde_json::{Value, json};
use service::config::Document;
use time::format_description::well_known::Rfc3339;

use crate::output::{self, Table};
use crate::settings::{self, WrongUsage};

/// `leadmill dead …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, oldest first
    List {
        #[command(flatten)]
        from: From,
        /// How many of each queue, at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one
    Show {
        /// Its message or event id
        id: String,
        #[command(flatten)]
        from: From,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Send them back to work, with their attempts forgotten
    #[command(after_help = "\
They keep their event id and go to their own queue only. What was handled meanwhile changes nothing the second time.

Examples:
  leadmill dead replay 0190b5a0-1c3d-7def-8123-456789abcdef
  leadmill dead replay --all --queue lead.created --limit 10")]
    Replay {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: From,
        /// How many of each queue, at most
        #[arg(long)]
        limit: Option<usize>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Throw them away; what they tell of stays in the database, and the reconciler may tell it again
    Drop {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        from: From,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which queue.
#[derive(Debug, clap::Args)]
pub struct From {
    /// Only those that came from this queue: lead.created or lead.enriched
    #[arg(long)]
    queue: Option<Queue>,
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Message or event ids
    ids: Vec<String>,
    /// All that are there now
    #[arg(long)]
    all: bool,
}

impl From {
    fn queues(&self) -> Vec<Queue> {
        self.queue.map_or_else(|| Queue::ALL.to_vec(), |queue| vec![queue])
    }
}

impl Which {
    fn selectors(self) -> Vec<DeadSelector> {
        if self.all { vec![DeadSelector::All] } else { self.ids.into_iter().map(DeadSelector::Id).collect() }
    }
}

/// Does what was asked for.
pub async fn run(document: &Document, command: Command) -> anyhow::Result<()> {
    let broker = Admin::new(settings::broker(document)?);
    match command {
        Command::List { from, limit, json } => {
            let letters = read(&broker, &from, limit).await?;
            if json { output::json(&letters.iter().map(as_value).collect::<Vec<_>>()) } else { list(&letters) }
        }
        Command::Show { id, from, json } => {
            let letters = read(&broker, &from, usize::MAX).await?;
            let Some(letter) = letters.into_iter().find(|letter| is_named(letter, &id)) else {
                bail!("there is no dead letter {id}; `leadmill dead list` shows them");
            };
            show(&letter, json)
        }
        Command::Replay { which, from, limit, json } => {
            let mut replayed = 0;
            for (selector, queue) in each(which, &from)? {
                match broker.replay_dead(queue, &selector, limit.unwrap_or(usize::MAX)).await {
                    Ok(outcome) => replayed += outcome.replayed,
                    Err(error) => absent(error)?,
                }
            }
            told("replayed", replayed, json)
        }
        Command::Drop { which, from, json } => {
            let mut dropped = 0;
            for (selector, queue) in each(which, &from)? {
                match broker.drop_dead(queue, &selector).await {
                    Ok(count) => dropped += count,
                    Err(error) => absent(error)?,
                }
            }
            told("dropped", dropped, json)
        }
    }
}

/// Every selector with every queue that is meant.
fn each(which: Which, from: &From) -> anyhow::Result<Vec<(DeadSelector, Queue)>> {
    let selectors = which.selectors();
    if selectors.is_empty() {
        return Err(WrongUsage("say which: ids as `leadmill dead list` shows them, or --all".to_owned()).into());
    }
    let queues = from.queues();
    Ok(selectors.into_iter().flat_map(|selector| queues.iter().map(move |queue| (selector.clone(), *queue))).collect())
}

async fn read(broker: &Admin, from: &From, limit: usize) -> anyhow::Result<Vec<DeadInfo>> {
    let mut letters = Vec::new();
    for queue in from.queues() {
        match broker.list_dead(queue, limit).await {
            Ok(more) => letters.extend(more),
            Err(error) => absent(error)?,
        }
    }
    Ok(letters)
}

/// A dead-letter queue that no service has declared yet holds nothing.
fn absent(error: BrokerError) -> anyhow::Result<()> {
    match error {
        BrokerError::NoSuchQueue { .. } => Ok(()),
        error => {
            Err(anyhow::Error::from(error)
                .context("asking RabbitMQ for dead letters: is it there, and is AMQP_URL right?"))
        }
    }
}

fn is_named(letter: &DeadInfo, id: &str) -> bool {
    letter.message_id.as_deref() == Some(id) || letter.event_id.is_some_and(|event| event.to_string() == id)
}

fn told(what: &str, count: usize, as_json: bool) -> anyhow::Result<()> {
    if as_json { output::json(&json!({ what: count })) } else { output::line(format_args!("{count} {what}")) }
}

fn id_of(letter: &DeadInfo) -> String {
    letter.message_id.clone().or_else(|| letter.event_id.map(|id| id.to_string())).unwrap_or_else(|| "-".to_owned())
}

fn list(letters: &[DeadInfo]) -> anyhow::Result<()> {
    if letters.is_empty() {
        output::note("There are no dead letters.");
        return Ok(());
    }
    let mut table = Table::new(["ID", "QUEUE", "EVENT", "LEAD", "ATTEMPT", "REASON"]);
    for letter in letters {
        table.row([
            id_of(letter),
            letter.queue.name().to_owned(),
            letter.kind.map_or_else(|| "-".to_owned(), |kind| kind.name().to_owned()),
            letter.lead_id.map_or_else(|| "-".to_owned(), |lead| lead.to_string()),
            letter.attempt.to_string(),
            letter.reason.clone(),
        ]);
    }
    table.print()
}

fn show(letter: &DeadInfo, as_json: bool) -> anyhow::Result<()> {
    let mut value = as_value(letter);
    // Only a body of ours is shown: anything else may hold anything.
    if letter.event_id.is_some() {
        value["body"] = serde_json::from_slice(&letter.body).unwrap_or(Value::Null);
    }
    if as_json {
        return output::json(&value);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let shown = value.as_str().map_or_else(|| value.to_string(), output::printable);
        output::line(format_args!("{name:<11} {shown}"))?;
    }
    Ok(())
}

fn as_value(letter: &DeadInfo) -> Value {
    json!({
        "id": id_of(letter),
        "queue": letter.queue.name(),
        "event_id": letter.event_id,
        "event": letter.kind.map(domain::event::EventKind::name),
        "program_id": letter.program_id,
        "lead_id": letter.lead_id,
        "reason": letter.reason,
        "attempt": letter.attempt,
        "died_at": letter.died_at.and_then(|died| died.format(&Rfc3339).ok()),
        "bytes": letter.bytes,
    })
}
