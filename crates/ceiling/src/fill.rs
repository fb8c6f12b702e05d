//! Tables as big as those of an installation that has run for years: leads that have been through everything, made by the
//! server itself. What would be sealed has the right length and no meaning, and can't be opened.

use domain::id::ProgramId;

use crate::{CeilingError, postgres::Database};

/// Leads of one statement.
const CHUNK: u64 = 50_000;

impl Database {
    /// Fills the tables with `leads` leads of a program, and tells `progress` how many are in. Two in five have a captured
    /// mail. Their ids are older than any new one.
    pub async fn fill(
        &self,
        program: ProgramId,
        leads: u64,
        mut progress: impl FnMut(u64),
    ) -> Result<(), CeilingError> {
        let mut first = 0;
        while first < leads {
            let end = leads.min(first + CHUNK);
            let refused = CeilingError::postgres("filling the tables");
            let mut tx = self.pool.begin().await.map_err(&refused)?;
            // These rows are lost with the database anyway.
            sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *tx).await.map_err(&refused)?;
            for function in FUNCTIONS {
                sqlx::query(function).execute(&mut *tx).await.map_err(&refused)?;
            }
            for statement in STATEMENTS {
                sqlx::query(statement)
                    .bind(program.as_uuid())
                    .bind(first as i64)
                    .bind(end as i64 - 1)
                    .bind(leads as i64)
                    .execute(&mut *tx)
                    .await
                    .map_err(&refused)?;
            }
            tx.commit().await.map_err(&refused)?;
            first = end;
            progress(first);
        }
        // Whoever has so many leads has long had them vacuumed and analysed.
        sqlx::query("VACUUM (ANALYZE) leads, lead_keys, enriched_leads, outreach, captured_mails")
            .execute(&self.pool)
            .await
            .map_err(CeilingError::postgres("vacuuming the tables"))?;
        self.checkpoint().await;
        Ok(())
    }
}

/// They are gone with the connection.
const FUNCTIONS: [&str; 2] = [
    // A UUIDv7: 48 bits of milliseconds of the year 2024, then version and variant, and the number instead of randomness.
    "CREATE OR REPLACE FUNCTION pg_temp.lead_id(n bigint, of bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
     $$ SELECT (lpad(to_hex(1704067200000 + n * (31536000000 / of)), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid $$",
    "CREATE OR REPLACE FUNCTION pg_temp.noise(bytes int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
     $$ SELECT decode(repeat('5a', bytes), 'hex') $$",
];

/// For a program ($1) the leads from number $2 to number $3, of $4 in all.
const STATEMENTS: [&str; 5] = [
    "INSERT INTO leads (program_id, id, source, name, username, email, profile_url, follower_count, bio, verified,
                        location, country, username_index, email_index, index_version, created_at, updated_at)
     SELECT $1, pg_temp.lead_id(n, $4), 'instagram', pg_temp.noise(53), pg_temp.noise(59), pg_temp.noise(78), pg_temp.noise(80), 18000, pg_temp.noise(106), false,
            pg_temp.noise(53), 'US', decode(md5('u' || n), 'hex'), decode(md5('e' || n), 'hex'), 1, instant, instant
     FROM generate_series($2::bigint, $3::bigint) AS n, LATERAL (SELECT now() - interval '1 year') AS t (instant)",
    "INSERT INTO lead_keys (program_id, lead_id, wrapped_key)
     SELECT $1, pg_temp.lead_id(n, $4), pg_temp.noise(81) FROM generate_series($2::bigint, $3::bigint) AS n",
    "INSERT INTO enriched_leads (program_id, lead_id, id, niche, score, notes, message, compliant, compliance_notes,
                                 ai_confidence, provider, lead_revision, decision, decision_reasons, decided_version,
                                 decided_at, created_at, updated_at)
     SELECT $1, pg_temp.lead_id(n, $4), pg_temp.lead_id(n, $4), 'fitness', n % 101, pg_temp.noise(379), pg_temp.noise(307), true, pg_temp.noise(83), 0.8, 'local',
            1, CASE WHEN n % 5 < 2 THEN 'planned' ELSE 'declined' END,
            CASE WHEN n % 5 < 2 THEN '{}'::text[] ELSE '{score_below_threshold:50<70}'::text[] END, 1, instant, instant, instant
     FROM generate_series($2::bigint, $3::bigint) AS n, LATERAL (SELECT now() - interval '1 year') AS t (instant)",
    "INSERT INTO outreach (program_id, id, lead_id, campaign, step, recipient_index, recipient_key, index_version, state,
                           message_id, enrichment_version, attempts, created_at, updated_at)
     SELECT $1, pg_temp.lead_id(n, $4), pg_temp.lead_id(n, $4), 'intro', 1, recipient, recipient, 1, 'captured',
            '<' || pg_temp.lead_id(n, $4) || '@bench.example.com>', 1, 1, instant, instant
     FROM generate_series($2::bigint, $3::bigint) AS n,
          LATERAL (SELECT decode(md5('e' || n), 'hex'), now() - interval '1 year') AS t (recipient, instant)
     WHERE n % 5 < 2",
    "INSERT INTO captured_mails (program_id, outreach_id, lead_id, mail, captured_at)
     SELECT $1, pg_temp.lead_id(n, $4), pg_temp.lead_id(n, $4), pg_temp.noise(2758), now() - interval '1 year'
     FROM generate_series($2::bigint, $3::bigint) AS n WHERE n % 5 < 2",
];
