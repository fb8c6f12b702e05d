-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS leads_by_domain ON leads USING gin (domain_indexes) WHERE domain_indexes IS NOT NULL;
