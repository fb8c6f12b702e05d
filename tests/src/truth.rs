//! What the database says, opened with the keys: the truth that everything else is compared with.

use domain::id::{LeadId, ProgramId};
use sqlx::Row as _;
use store::{
    Db, DbConfig,
    leads::{self, Found},
};
use uuid::Uuid;

use crate::stack::Stack;

/// An intended mail, with the person it is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intended {
    /// The recipient's address.
    pub recipient: String,
    /// Its `Message-ID`.
    pub message_id: String,
    /// Whom it is for.
    pub lead: Uuid,
}

/// The mails in one of these states, sorted.
pub async fn mails_in(stack: &Stack, states: &[&str]) -> Vec<Intended> {
    let rows = sqlx::query("SELECT program_id, lead_id, message_id FROM outreach WHERE state::text = ANY ($1)")
        .bind(states)
        .fetch_all(&mut stack.connect().await)
        .await
        .expect("the outreach can be read");
    let ids: Vec<(ProgramId, LeadId)> = rows
        .iter()
        .map(|row| (ProgramId::from_uuid(row.get("program_id")), LeadId::from_uuid(row.get("lead_id"))))
        .collect();
    let db = Db::new(&DbConfig { max_connections: 1, ..DbConfig::new(stack.database().url()) }).expect("a URL");
    let found = leads::open(&db, &stack.vault(), &ids).await.expect("leads can be opened");
    db.close().await;
    let mut mails: Vec<Intended> = rows
        .iter()
        .zip(&ids)
        .map(|(row, id)| {
            let Some(Found::Lead(open)) = found.get(id) else { panic!("lead {} is gone", id.1) };
            let email = open.lead.profile.email.as_ref().expect("nobody without an address gets a mail");
            Intended { recipient: email.as_str().to_owned(), message_id: row.get("message_id"), lead: id.1.as_uuid() }
        })
        .collect();
    mails.sort();
    mails
}

/// One number out of the database.
pub async fn count(stack: &Stack, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut stack.connect().await).await.expect("a count")
}
