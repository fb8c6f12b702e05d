//! Lost, doubled, uncertain, stranded: what became of every accepted lead, by the mail server's own record.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    fs::{self, OpenOptions},
    io::Write as _,
};

use domain::email::EmailAddress;
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    audit::{self, Broken, Planted},
    faults::{feed::Fed, history},
    mail::{self, Mail},
    stack::Stack,
    truth,
};

/// How many complaints are shown.
const SHOWN: usize = 10;

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
    /// Leads that wait for something that never comes, by the audit's rules.
    pub stranded: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, fault, runs, leads, recorded, lost, doubled, uncertain, stranded } = self;
        write!(f, "{row}\t{fault}\t{runs}\t{leads}\t{recorded}\t{lost}\t{doubled}\t{uncertain}\t{stranded}")
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

/// Something that must not be. It is shown as `complaint: <what>: <detail>`, and `make mutations` looks for `<what>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What must not be, in words that don't change.
    pub what: &'static str,
    /// How much of it, or an example.
    pub detail: String,
}

impl Complaint {
    /// A complaint.
    pub fn new(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, detail: detail.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "complaint: {}: {}", self.what, self.detail)
    }
}

/// What a verdict found. The line of the fault table is noted already, whatever it says.
#[derive(Debug)]
#[must_use = "a verdict that nobody asserts finds nothing"]
pub struct Verdict {
    /// The line of the fault table.
    pub tally: Tally,
    /// Everything that must not be.
    pub complaints: Vec<Complaint>,
}

impl Verdict {
    /// Adds what a scenario itself found.
    pub fn add(&mut self, complaints: impl IntoIterator<Item = Complaint>) {
        self.complaints.extend(complaints);
    }

    /// Gives the line of the fault table.
    ///
    /// # Panics
    /// When there are complaints, showing those of each kind that came first.
    #[track_caller]
    pub fn assert(self) -> Tally {
        let Self { tally, mut complaints } = self;
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        complaints.retain(|complaint| {
            let count = seen.entry(complaint.what).or_default();
            *count += 1;
            *count <= SHOWN
        });
        let text: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert!(text.is_empty(), "{tally}\n{}", text.join("\n"));
        tally
    }
}

/// Compares the stack's word with the server's record, and notes the line of the fault table. Nothing may be on its way any
/// more. `complaints` are those that there are already, `broken` is what an audit found.
pub async fn verdict(
    stack: &Stack,
    mails: &[Mail],
    done: Done<'_>,
    mut complaints: Vec<Complaint>,
    broken: &[Broken],
) -> Verdict {
    let stranded = audit::stranded_leads(broken);
    complaints.extend(broken.iter().map(|broken| Complaint::new(broken.rule.name, broken.by())));
    let leads = truth::count(stack, "SELECT count(*) FROM leads").await as u64;
    let by_record = compared(stack, mails, &mut complaints).await;
    let mut lost = by_record.lost;
    if let Some(fed) = done.fed {
        lost += fed.accepted.saturating_sub(leads);
        if fed.accepted != leads {
            let detail = format!("{} were accepted, {leads} are there", fed.accepted);
            complaints.push(Complaint::new("the leads are not those that were accepted", detail));
        }
    }
    if by_record.uncertain > done.in_doubt {
        let detail = format!("{}, and at most {} can be", by_record.uncertain, done.in_doubt);
        complaints.push(Complaint::new("more mails are uncertain than faults can explain", detail));
    }
    complaints.extend(panics(stack));
    let tally = Tally {
        row: done.row,
        fault: done.fault.to_owned(),
        runs: done.runs,
        leads,
        recorded: mails.len() as u64,
        lost,
        doubled: by_record.doubled,
        uncertain: by_record.uncertain,
        stranded,
    };
    note(&tally);
    Verdict { tally, complaints }
}

/// What the server's record says about the rows.
struct ByRecord {
    lost: u64,
    doubled: u64,
    uncertain: u64,
}

/// Compares each row with what the server got of it.
async fn compared(stack: &Stack, mails: &[Mail], complaints: &mut Vec<Complaint>) -> ByRecord {
    let rows = sqlx::query("SELECT id, message_id, recipient_index, state::text, reason FROM outreach")
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the outreach can be read");
    let (history, keys) = (history::states(stack).await, stack.program_keys().await);

    let mut recorded: BTreeMap<String, Vec<&Mail>> = BTreeMap::new();
    let mut recipients: BTreeMap<&str, u64> = BTreeMap::new();
    for mail in mails {
        recorded.entry(mail::message_id(&mail.data)).or_default().push(mail);
        for recipient in &mail.rcpt_to {
            *recipients.entry(recipient).or_default() += 1;
        }
    }
    let mut known = BTreeSet::new();
    let (mut lost, mut uncertain) = (0, 0);
    for row in &rows {
        let (id, message_id): (Uuid, String) = (row.get("id"), row.get("message_id"));
        let (state, reason): (String, Option<String>) = (row.get("state"), row.get("reason"));
        let came = recorded.get(&message_id).map(Vec::as_slice).unwrap_or_default();
        let began = history.get(&id).is_some_and(|states| states.contains("transmitting"));
        match state.as_str() {
            "sent" if came.is_empty() => {
                lost += 1;
                complaints.push(Complaint::new("a mail is `sent`, and the server never got it", id.to_string()));
            }
            "uncertain" => {
                uncertain += 1;
                if !began {
                    complaints
                        .push(Complaint::new("a mail is `uncertain`, and never was in the data phase", id.to_string()));
                }
            }
            "sent" => {}
            _ if !came.is_empty() => {
                let detail = format!("{id} is `{state}` ({reason:?})");
                complaints.push(Complaint::new("the server has a mail that is neither sent nor uncertain", detail));
            }
            _ => {}
        }
        if !came.is_empty() && !began {
            complaints.push(Complaint::new("the server has a mail that never was in the data phase", id.to_string()));
        }
        let planned_for: Vec<u8> = row.get("recipient_index");
        for recipient in came.iter().flat_map(|mail| &mail.rcpt_to) {
            let index = EmailAddress::parse(recipient).ok().map(|address| keys.email_index(&address).to_vec());
            if index.as_ref() != Some(&planned_for) {
                complaints
                    .push(Complaint::new("a mail went to another address than it was planned for", id.to_string()));
            }
        }
        known.insert(message_id);
    }
    for message_id in recorded.keys().filter(|message_id| !known.contains(*message_id)) {
        complaints
            .push(Complaint::new("the server has a mail of which the database knows nothing", message_id.clone()));
    }
    let copies: u64 = recorded.values().map(|copies| copies.len() as u64 - 1).sum();
    if copies > 0 {
        complaints.push(Complaint::new("copies of a mail", copies.to_string()));
    }
    let again: u64 = recipients.values().map(|count| count - 1).sum();
    if again > 0 {
        let most = recipients.iter().max_by_key(|(_, count)| **count);
        complaints.push(Complaint::new("mails beyond the first for one person", format!("{again}, such as {most:?}")));
    }
    ByRecord { lost, doubled: copies.max(again), uncertain }
}

/// Processes that ended by a defect of their own.
fn panics(stack: &Stack) -> Vec<Complaint> {
    let logs = fs::read_dir(stack.folder()).expect("the stack's folder can be read").flatten();
    let logs = logs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|entry| {
        let text = String::from_utf8_lossy(&fs::read(entry.path()).ok()?).into_owned();
        let line = text.lines().find(|line| line.contains("panicked at"))?;
        Some(Complaint::new("a process panicked", format!("{}: {line}", entry.file_name().display())))
    })
    .collect()
}

/// Adds the line to the table in `TEST_FAULT_TABLE`, which `deploy/test.sh` prints at its end.
pub fn note(tally: &Tally) {
    let Some(table) = env::var_os("TEST_FAULT_TABLE").filter(|table| !table.is_empty()) else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(table).expect("the fault table takes lines");
    file.write_all(format!("{tally}\n").as_bytes()).expect("the fault table takes lines");
}
