-- Which revision of a lead waits for an enrichment, so that the reconciler reads these leads and no others. It stands beside
-- the lead's key since that row is narrow, and whoever changes or enriches a lead locks it anyway.
--
-- The rows that are there count as enriched until the job `reconciler-full` has looked at their leads. New rows wait, also
-- those of versions that don't know the column: a new lead has revision 1.
ALTER TABLE lead_keys ADD COLUMN awaited_revision integer;
ALTER TABLE lead_keys ALTER COLUMN awaited_revision SET DEFAULT 1;
-- Each lead enters and leaves the indexes over unfinished leads once; what it leaves behind shouldn't be read for long.
ALTER TABLE lead_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE enriched_leads SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
