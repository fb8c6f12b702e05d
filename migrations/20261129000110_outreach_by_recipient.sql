-- no-transaction
-- By recipient first: an index that began with program_id would be younger than the primary key, and PostgreSQL would take it
-- for as good a way to one row of a program that the statistics don't know yet (see 20261123000200).
CREATE INDEX CONCURRENTLY IF NOT EXISTS outreach_by_recipient ON outreach (recipient_index, program_id);
