-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS suppressions_to_apply ON suppressions (program_id, recipient_index) WHERE applied_at IS NULL;
