-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS lead_keys_awaiting ON lead_keys (program_id, lead_id) WHERE awaited_revision IS NOT NULL;
