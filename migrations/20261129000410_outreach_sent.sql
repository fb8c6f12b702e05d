-- no-transaction
-- A program's last mails: refusals by policy pause it when there are several among them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS outreach_sent ON outreach (program_id, sent_at) WHERE sent_at IS NOT NULL;
