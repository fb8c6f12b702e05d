//! Lost, doubled, uncertain: what became of every accepted lead, by the mail server's own record.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    fs::{self, OpenOptions},
    io::Write as _,
};

use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    audit::{Planted, audit},
    faults::{feed::Fed, history},
    mail::{self, Mail},
    stack::Stack,
    truth,
};

/// A line of the fault table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The row of the fault table, such as `1`.
    pub row: u8,
    /// What was done to the system.
    pub fault: String,
    /// How often.
    pub runs: u64,
    /// Leads that were accepted.
    pub leads: u64,
    /// Mails that the server recorded.
    pub recorded: u64,
    /// Leads or mails that the system says it has dealt with and hasn't.
    pub lost: u64,
    /// Mails beyond the first for one person.
    pub doubled: u64,
    /// Mails of unknown fate.
    pub uncertain: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, fault, runs, leads, recorded, lost, doubled, uncertain } = self;
        write!(f, "{row}\t{fault}\t{runs}\t{leads}\t{recorded}\t{lost}\t{doubled}\t{uncertain}")
    }
}

/// What a scenario did, for its verdict.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done<'a> {
    /// The row of the fault table.
    pub row: u8,
    /// What was done to the system.
    pub fault: &'a str,
    /// How often.
    pub runs: u64,
    /// What went in, by the collector's own answers; `None` where it was asked in another way.
    pub fed: Option<Fed>,
    /// How many mails may be of unknown fate: those that were on their way when something broke. None, unless said.
    pub in_doubt: u64,
    /// What was planted on purpose.
    pub planted: Planted<'a>,
}

/// Audits the stack, compares its word with the server's record, notes the line of the fault table, and gives it.
///
/// # Panics
/// When anything is lost, doubled, or uncertain without a reason, naming an example.
pub async fn verdict(stack: &Stack, mails: &[Mail], done: Done<'_>) -> Tally {
    audit(stack, done.planted).await;
    let leads = truth::count(stack, "SELECT count(*) FROM leads").await as u64;
    let rows = sqlx::query("SELECT id, message_id, state::text, reason FROM outreach")
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the outreach can be read");
    let history = history::states(stack).await;

    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    let mut recipients: BTreeMap<&str, usize> = BTreeMap::new();
    for mail in mails {
        *recorded.entry(mail::message_id(&mail.data)).or_default() += 1;
        for recipient in &mail.rcpt_to {
            *recipients.entry(recipient).or_default() += 1;
        }
    }
    let mut complaints = Vec::new();
    let mut known = BTreeSet::new();
    let (mut lost, mut uncertain) = (0, 0);
    for row in &rows {
        let (id, message_id): (Uuid, String) = (row.get("id"), row.get("message_id"));
        let (state, reason): (String, Option<String>) = (row.get("state"), row.get("reason"));
        let came = recorded.get(&message_id).copied().unwrap_or_default();
        let states = history.get(&id).cloned().unwrap_or_default();
        match state.as_str() {
            "sent" if came == 0 => {
                lost += 1;
                complaints.push(format!("{id} is `sent`, and the server never got it"));
            }
            "uncertain" => {
                uncertain += 1;
                if !states.contains("transmitting") {
                    complaints.push(format!("{id} is `uncertain`, and never was in the data phase"));
                }
            }
            "sent" => {}
            _ if came > 0 => complaints.push(format!("{id} is `{state}` ({reason:?}), and the server has it")),
            _ => {}
        }
        if came > 0 && !states.contains("transmitting") {
            complaints.push(format!("the server has {id}, which never was in the data phase"));
        }
        known.insert(message_id);
    }
    for message_id in recorded.keys().filter(|message_id| !known.contains(*message_id)) {
        complaints.push(format!("the server has {message_id}, of which the database knows nothing"));
    }
    let copies: usize = recorded.values().map(|count| count - 1).sum();
    let again: usize = recipients.values().map(|count| count - 1).sum();
    if copies + again > 0 {
        let most = recipients.iter().max_by_key(|(_, count)| **count);
        complaints.push(format!("{copies} copies of a mail, {again} mails beyond the first for one person: {most:?}"));
    }
    if let Some(fed) = done.fed {
        lost += fed.accepted.saturating_sub(leads);
        if fed.accepted != leads {
            complaints.push(format!("{} leads were accepted, {leads} are there", fed.accepted));
        }
    }
    if uncertain > done.in_doubt {
        complaints.push(format!("{uncertain} mails are `uncertain`, and at most {} can be", done.in_doubt));
    }
    complaints.extend(panics(stack));
    let tally = Tally {
        row: done.row,
        fault: done.fault.to_owned(),
        runs: done.runs,
        leads,
        recorded: mails.len() as u64,
        lost,
        doubled: copies.max(again) as u64,
        uncertain,
    };
    complaints.truncate(10);
    assert!(complaints.is_empty(), "{tally}\n{}", complaints.join("\n"));
    note(&tally);
    tally
}

/// Processes that ended by a defect of their own.
fn panics(stack: &Stack) -> Vec<String> {
    let logs = fs::read_dir(stack.folder()).expect("the stack's folder can be read").flatten();
    let logs = logs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|entry| {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).ok()?).into_owned();
        let line = text.lines().find(|line| line.contains("panicked at"))?;
        Some(format!("{}: {line}", entry.file_name().display()))
    })
    .collect()
}

/// Adds the line to the table in `TEST_FAULT_TABLE`, which `deploy/test.sh` prints at its end.
pub fn note(tally: &Tally) {
    let Some(table) = env::var_os("TEST_FAULT_TABLE").filter(|table| !table.is_empty()) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(table).expect("the fault table takes lines");
    file.write_all(format!("{tally}\n").as_bytes()).expect("the fault table takes lines");
}
