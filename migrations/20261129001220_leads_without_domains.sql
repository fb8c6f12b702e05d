-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS leads_without_domains ON leads (program_id, id) WHERE email_index IS NOT NULL AND domain_indexes_of IS DISTINCT FROM email_index;
