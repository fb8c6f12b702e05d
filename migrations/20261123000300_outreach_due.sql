-- What is due to be claimed, and nothing else. Leases have an index of their own; in both, each claim and each move to the data
-- phase cost an entry more.
CREATE INDEX outreach_due ON outreach (program_id, due_at) WHERE state IN ('queued', 'deferred');
DROP INDEX outreach_wanting_attention;
