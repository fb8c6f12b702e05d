-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS enriched_leads_undecided ON enriched_leads (program_id, lead_id) WHERE decided_version IS NULL OR decided_version < enrichment_version;
