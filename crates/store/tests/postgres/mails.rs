//! Tables full of leads and mails in every state, made by the server itself.

use sqlx::Connection as _;

use crate::world::World;

/// Gives the program of `world` so many leads with a mail each. Every twentieth recipient is suppressed, and six in ten of
/// their mails are due all the same, before all others, as if the objection had come while they could not be cancelled.
/// Of the other mails a quarter is due, in the order of their ids.
///
/// What would be sealed has the usual length and no meaning. Statistics are left as they are, and autovacuum stays away from
/// these tables from here on.
pub async fn fill(world: &World, mails: u32) {
    let mut connection = world.database.connect().await;
    let program = world.id().to_string();
    for statement in STATEMENTS {
        let statement = statement.replace("$program", &program).replace("$mails", &mails.to_string());
        let statement = statement.replace("$law", &store::programs::law_version().to_string());
        sqlx::raw_sql(&statement).execute(&mut connection).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    connection.close().await.unwrap();
}

const STATEMENTS: [&str; 8] = [
    "ALTER TABLE leads SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
     ALTER TABLE lead_keys SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
     ALTER TABLE enriched_leads SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
     ALTER TABLE outreach SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
     ALTER TABLE suppressions SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)",
    // A UUIDv7 of the year 2024 that ends in the number, and as many bytes as a field has that was sealed.
    "CREATE FUNCTION pg_temp.row_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
     $$ SELECT ('018d0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
     CREATE FUNCTION pg_temp.sealed(bytes int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
     $$ SELECT decode(repeat('5a', bytes), 'hex') $$",
    "CREATE TEMP TABLE filling AS
     SELECT n, pg_temp.row_id(n) AS id, decode(md5('email ' || n), 'hex') AS recipient, n % 20 = 0 AS suppressed,
            CASE WHEN n % 20 = 0
                 THEN ('{queued,queued,queued,queued,deferred,deferred,held,sent,sent,failed}'::text[])[n / 20 % 10 + 1]
                 ELSE ('{queued,queued,queued,queued,queued,deferred,deferred,held,sent,sent,sent,sent,sent,sent,sent,'
                       'uncertain,failed,cancelled,cancelled}'::text[])[n % 20]
            END AS state
     FROM generate_series(1, $mails) AS n",
    "INSERT INTO leads (program_id, id, source, name, username, email, bio, country, username_index, email_index,
                        index_version, created_at, updated_at)
     SELECT '$program', id, 'instagram', pg_temp.sealed(53), pg_temp.sealed(59), pg_temp.sealed(78), pg_temp.sealed(106),
            'US', decode(md5('username ' || n), 'hex'), recipient, 1, now(), now()
     FROM filling ORDER BY n",
    "INSERT INTO lead_keys (program_id, lead_id, wrapped_key)
     SELECT '$program', id, pg_temp.sealed(81) FROM filling ORDER BY n",
    "INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, notes, message, compliant, compliance_notes,
                                 ai_confidence, provider, lead_revision, decision, decided_version, decided_at,
                                 contacted, sent, created_at, updated_at)
     SELECT '$program', id, id, 'food', 90, pg_temp.sealed(379), pg_temp.sealed(307), true, pg_temp.sealed(83), 0.8,
            'local', 1, 'planned', 1, now(), state = 'sent', state = 'sent', now(), now()
     FROM filling ORDER BY n",
    "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version, state,
                           reason, message_id, enrichment_version, attempts, due_at, sent_at, created_at, updated_at,
                           law_version)
     SELECT '$program', id, id, 'intro', 1, recipient, CASE WHEN state <> 'cancelled' THEN recipient END, 1,
            state::outreach_state,
            CASE state WHEN 'held' THEN 'program_paused' WHEN 'cancelled' THEN 'no_longer_qualified'
                       WHEN 'deferred' THEN 'greylisted' WHEN 'failed' THEN 'no_such_mailbox'
                       WHEN 'uncertain' THEN 'connection_lost' END,
            '<' || id || '@acme.example>', 1, CASE WHEN state IN ('queued', 'held', 'cancelled') THEN 0 ELSE 1 END,
            CASE WHEN state NOT IN ('queued', 'deferred') THEN NULL
                 WHEN suppressed THEN now() - interval '1 day' + n * interval '1 microsecond'
                 WHEN state = 'queued' THEN now() - interval '1 hour' + n * interval '1 microsecond'
                 ELSE now() + interval '1 hour' END,
            CASE state WHEN 'sent' THEN now() END, now() - interval '2 days', now(), $law
     FROM filling ORDER BY n",
    "INSERT INTO suppressions (program_id, recipient_index, index_version, reason, created_at)
     SELECT '$program', recipient, 1, CASE state WHEN 'failed' THEN 'hard_bounce' ELSE 'unsubscribed' END, now()
     FROM filling WHERE suppressed ORDER BY n",
];
