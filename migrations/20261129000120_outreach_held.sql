-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS outreach_held ON outreach (program_id, due_at) WHERE state = 'held';
