//! The rows of a lead's way, in transactions per batch as the stages have them: taken in, enriched, decided, mailed; or of its
//! intake alone, which ends when its events are published.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    event::{Envelope, Event},
    id::{LeadId, OutreachId, ProgramId},
};
use sqlx::{PgConnection, postgres::PgQueryResult};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Amount, Transport};
use crate::{CeilingError, postgres::Database};

/// Leads of one transaction, as the stages have it.
const BATCH: u64 = 256;
/// Transactions at once: while one waits for the disk, others are written.
const LANES: usize = 4;

/// Mean lengths of sealed values of made-up creators, in bytes: what stands in the tables after `leadmill demo`.
mod length {
    pub const NAME: usize = 53;
    pub const USERNAME: usize = 59;
    pub const EMAIL: usize = 78;
    pub const PROFILE_URL: usize = 80;
    pub const BIO: usize = 106;
    pub const LOCATION: usize = 53;
    pub const KEY: usize = 81;
    pub const NOTES: usize = 379;
    pub const MESSAGE: usize = 307;
    pub const COMPLIANCE_NOTES: usize = 83;
    pub const MAIL: usize = 2_758;
}

/// Everything that is to be written.
pub struct Rows {
    program: ProgramId,
    transport: Transport,
    steps: &'static [Step],
    batches: Vec<Batch>,
}

/// The rows of a batch of leads, as the columns that statements take.
struct Batch {
    leads: Vec<Uuid>,
    indexes: Vec<Vec<u8>>,
    email_indexes: Vec<Vec<u8>>,
    enrichments: Vec<Uuid>,
    created: Events,
    enriched: Events,
    /// Leads with a mail, the mail's id and its recipient.
    mailed: Vec<Uuid>,
    mails: Vec<Uuid>,
    recipients: Vec<Vec<u8>>,
    contacted: Events,
}

/// Rows of the outbox; the instant, which they share, is how they are found again.
struct Events {
    available_at: OffsetDateTime,
    ids: Vec<Uuid>,
    envelopes: Vec<Vec<u8>>,
}

impl Events {
    fn of(program: ProgramId, leads: &[Uuid], instant: OffsetDateTime, event: impl Fn() -> Event) -> Self {
        let envelopes: Vec<Envelope> =
            leads.iter().map(|lead| Envelope::new(program, LeadId::from_uuid(*lead), 1, instant, event())).collect();
        Self {
            available_at: instant,
            ids: envelopes.iter().map(|envelope| envelope.event_id.as_uuid()).collect(),
            envelopes: envelopes.iter().map(Envelope::encode).collect(),
        }
    }
}

impl Rows {
    /// Makes those of a lead's whole way.
    pub fn prepare(program: ProgramId, amount: Amount) -> Self {
        Self::of(program, amount, &[Step::TakeIn, Step::Enrich, Step::Decide, Step::Begin, Step::Settle])
    }

    /// Makes those of leads that are only taken in.
    pub fn prepare_intake(program: ProgramId, leads: u64) -> Self {
        let amount = Amount { leads, mails: 0, transport: Transport::Capture };
        Self::of(program, amount, &[Step::TakeIn, Step::Published])
    }

    fn of(program: ProgramId, amount: Amount, steps: &'static [Step]) -> Self {
        let starts = (0..amount.leads).step_by(BATCH as usize);
        let batches = starts
            .map(|first| {
                // All that matters is that each batch has one of its own.
                let instant = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(first);
                Batch::prepare(program, amount, instant, first..amount.leads.min(first + BATCH))
            })
            .collect();
        Self { program, transport: amount.transport, steps, batches }
    }

    /// Writes them, and tells how long it took.
    pub async fn write(self, database: &Database) -> Result<Duration, CeilingError> {
        let rows = Arc::new(self);
        let next = Arc::new(AtomicUsize::new(0));
        let pool = database.lanes(LANES).await?;
        let started = Instant::now();
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let (rows, next, pool) = (Arc::clone(&rows), Arc::clone(&next), pool.clone());
            lanes.spawn(async move {
                let refused = CeilingError::postgres("writing rows");
                while let Some(batch) = rows.batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for &step in rows.steps {
                        if rows.has(step, batch) {
                            let mut tx = pool.begin().await.map_err(&refused)?;
                            rows.apply(step, batch, &mut tx).await.map_err(&refused)?;
                            tx.commit().await.map_err(&refused)?;
                        }
                    }
                }
                Ok(())
            });
        }
        while let Some(ended) = lanes.join_next().await {
            ended.map_err(|_| CeilingError::Panicked)??;
        }
        let took = started.elapsed();
        pool.close().await;
        Ok(took)
    }

    /// Whether a batch takes this step.
    fn has(&self, step: Step, batch: &Batch) -> bool {
        match step {
            Step::TakeIn | Step::Published | Step::Enrich | Step::Decide => true,
            Step::Begin => self.transport == Transport::Smtp && !batch.mails.is_empty(),
            Step::Settle => !batch.mails.is_empty(),
        }
    }

    async fn apply(&self, step: Step, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<()> {
        match step {
            Step::TakeIn => {
                self.insert_leads(batch, tx).await?;
                insert_events(&batch.created, tx).await?;
            }
            Step::Published => {
                delete_events(&batch.created, tx).await?;
            }
            Step::Enrich => {
                delete_events(&batch.created, tx).await?;
                self.insert_enrichments(batch, tx).await?;
                insert_events(&batch.enriched, tx).await?;
            }
            Step::Decide => {
                delete_events(&batch.enriched, tx).await?;
                self.decide(batch, tx).await?;
            }
            Step::Begin => {
                self.update_mails(batch, "transmitting", tx).await?;
            }
            Step::Settle => match self.transport {
                Transport::Capture => {
                    self.update_mails(batch, "captured", tx).await?;
                    self.insert_captured(batch, tx).await?;
                }
                Transport::Smtp => {
                    self.update_mails(batch, "sent", tx).await?;
                    self.mark_contacted(batch, tx).await?;
                    insert_events(&batch.contacted, tx).await?;
                    delete_events(&batch.contacted, tx).await?;
                }
            },
        }
        Ok(())
    }

    async fn insert_leads(&self, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<()> {
        let sealed = |bytes| vec![noise(bytes); batch.leads.len()];
        sqlx::query(
            "INSERT INTO leads (program_id, id, source, name, username, email, profile_url, follower_count, bio, verified,
                                location, country, username_index, email_index, index_version, created_at, updated_at)
             SELECT $1, id, 'instagram', name, username, email, profile_url, 18000, bio, false, location, 'US',
                    username_index, email_index, 1, now(), now()
             FROM UNNEST($2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[],
                         $9::bytea[], $10::bytea[])
                  AS n (id, name, username, email, profile_url, bio, location, username_index, email_index)",
        )
        .bind(self.program.as_uuid())
        .bind(&batch.leads)
        .bind(sealed(length::NAME))
        .bind(sealed(length::USERNAME))
        .bind(sealed(length::EMAIL))
        .bind(sealed(length::PROFILE_URL))
        .bind(sealed(length::BIO))
        .bind(sealed(length::LOCATION))
        .bind(&batch.indexes)
        .bind(&batch.email_indexes)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO lead_keys (program_id, lead_id, wrapped_key)
             SELECT $1, lead_id, wrapped_key FROM UNNEST($2::uuid[], $3::bytea[]) AS k (lead_id, wrapped_key)",
        )
        .bind(self.program.as_uuid())
        .bind(&batch.leads)
        .bind(sealed(length::KEY))
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn insert_enrichments(&self, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
        let sealed = |bytes| vec![noise(bytes); batch.leads.len()];
        sqlx::query(
            "INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, notes, message, compliant,
                                         compliance_notes, ai_confidence, provider, lead_revision, created_at, updated_at)
             SELECT $1, lead_id, id, 'fitness', 75, notes, message, true, compliance_notes, 0.8, 'local', 1, now(), now()
             FROM UNNEST($2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[])
                  AS n (lead_id, id, notes, message, compliance_notes)
             ON CONFLICT (program_id, lead_id) DO NOTHING",
        )
        .bind(self.program.as_uuid())
        .bind(&batch.leads)
        .bind(&batch.enrichments)
        .bind(sealed(length::NOTES))
        .bind(sealed(length::MESSAGE))
        .bind(sealed(length::COMPLIANCE_NOTES))
        .execute(tx)
        .await
    }

    /// The decision about each lead, and the mails that follow.
    async fn decide(&self, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE enriched_leads e
             SET decision = 'planned', decision_reasons = '{}', decided_version = 1, decided_at = now()
             FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, lead_id)
             WHERE e.program_id = n.program_id AND e.lead_id = n.lead_id",
        )
        .bind(vec![self.program.as_uuid(); batch.leads.len()])
        .bind(&batch.leads)
        .execute(&mut *tx)
        .await?;
        if batch.mails.is_empty() {
            return Ok(());
        }
        let tokens: Vec<Uuid> = batch.mails.iter().map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version,
                                   state, message_id, enrichment_version, attempts, due_at, lease_token, created_at,
                                   updated_at)
             SELECT $1, id, lead_id, 'intro', 1, recipient, recipient, 1, 'connecting',
                    '<' || id || '@bench.example.com>', 1, 1, now() + interval '1 minute', token, now(),
                    now()
             FROM UNNEST($2::uuid[], $3::uuid[], $4::bytea[], $5::uuid[]) AS n (id, lead_id, recipient, token)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.program.as_uuid())
        .bind(&batch.mails)
        .bind(&batch.mailed)
        .bind(&batch.recipients)
        .bind(tokens)
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn update_mails(&self, batch: &Batch, state: &str, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
        sqlx::query(
            "UPDATE outreach o
             SET state = $3::outreach_state, updated_at = now(),
                 due_at = CASE WHEN $3 = 'transmitting' THEN now() + interval '1 minute' END,
                 lease_token = CASE WHEN $3 = 'transmitting' THEN o.lease_token END,
                 sent_at = CASE WHEN $3 = 'sent' THEN now() END
             FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, id)
             WHERE o.program_id = n.program_id AND o.id = n.id",
        )
        .bind(vec![self.program.as_uuid(); batch.mails.len()])
        .bind(&batch.mails)
        .bind(state)
        .execute(tx)
        .await
    }

    async fn insert_captured(&self, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
        sqlx::query(
            "INSERT INTO captured_mails (program_id, outreach_id, lead_id, mail, captured_at)
             SELECT $1, id, lead_id, mail, now()
             FROM UNNEST($2::uuid[], $3::uuid[], $4::bytea[]) AS n (id, lead_id, mail)
             ON CONFLICT (program_id, outreach_id) DO NOTHING",
        )
        .bind(self.program.as_uuid())
        .bind(&batch.mails)
        .bind(&batch.mailed)
        .bind(vec![noise(length::MAIL); batch.mails.len()])
        .execute(tx)
        .await
    }

    async fn mark_contacted(&self, batch: &Batch, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
        sqlx::query(
            "UPDATE enriched_leads e SET sent = true, contacted = true, updated_at = now()
             FROM UNNEST($1::uuid[], $2::uuid[]) AS n (program_id, lead_id)
             WHERE e.program_id = n.program_id AND e.lead_id = n.lead_id",
        )
        .bind(vec![self.program.as_uuid(); batch.mailed.len()])
        .bind(&batch.mailed)
        .execute(tx)
        .await
    }
}

/// A transaction of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    TakeIn,
    /// The end of an intake by itself; elsewhere events are deleted with what follows.
    Published,
    Enrich,
    Decide,
    /// The move to the data phase, of mails that are sent.
    Begin,
    Settle,
}

impl Batch {
    fn prepare(program: ProgramId, amount: Amount, instant: OffsetDateTime, numbers: std::ops::Range<u64>) -> Self {
        let leads: Vec<Uuid> = numbers.clone().map(|_| Uuid::now_v7()).collect();
        let email_indexes: Vec<Vec<u8>> = leads.iter().map(|_| index()).collect();
        let with_mail: Vec<usize> =
            numbers.enumerate().filter(|(_, number)| amount.has_mail(*number)).map(|(place, _)| place).collect();
        let mailed: Vec<Uuid> = with_mail.iter().map(|place| leads[*place]).collect();
        Self {
            indexes: leads.iter().map(|_| index()).collect(),
            enrichments: leads.iter().map(|_| Uuid::now_v7()).collect(),
            created: Events::of(program, &leads, instant, || Event::LeadCreated {}),
            enriched: Events::of(program, &leads, instant, || Event::LeadEnriched { enrichment_version: 1, score: 75 }),
            mails: mailed.iter().map(|_| Uuid::now_v7()).collect(),
            recipients: with_mail.iter().map(|place| email_indexes[*place].clone()).collect(),
            contacted: Events::of(program, &mailed, instant, || Event::LeadContacted {
                outreach_id: OutreachId::generate(),
                campaign: "intro".to_owned(),
                step: 1,
            }),
            mailed,
            email_indexes,
            leads,
        }
    }
}

/// A blind index: 16 bytes that look random, so that its place in the database's index is.
fn index() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

/// Bytes that stand where sealed ones would. They aren't compressed by anybody, so they need not be random.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place * 151 % 251) as u8).collect()
}

async fn insert_events(events: &Events, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
    sqlx::query(
        "INSERT INTO outbox (id, available_at, envelope, traceparent, created_at)
         SELECT id, $3, envelope, '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', now()
         FROM UNNEST($1::uuid[], $2::bytea[]) AS e (id, envelope)",
    )
    .bind(&events.ids)
    .bind(&events.envelopes)
    .bind(events.available_at)
    .execute(tx)
    .await
}

async fn delete_events(events: &Events, tx: &mut PgConnection) -> sqlx::Result<PgQueryResult> {
    sqlx::query("DELETE FROM outbox WHERE available_at = $1 AND (id IN (SELECT UNNEST($2::uuid[]))) IS TRUE")
        .bind(events.available_at)
        .bind(&events.ids)
        .execute(tx)
        .await
}
