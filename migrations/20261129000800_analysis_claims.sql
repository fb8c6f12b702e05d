-- Who is asking a model about a lead: asking costs money, so one delivery at a time does, whichever replica has it.
--
-- Rows live for as long as a request. There is no foreign key, since one to `leads` would lock the lead's row for each of
-- them; what a process that died leaves behind is taken over, or means nothing.

CREATE TABLE analysis_claims (
    program_id    uuid        NOT NULL,
    lead_id       uuid        NOT NULL,
    -- the revision that is being analysed: a newer one doesn't wait for it
    lead_revision integer     NOT NULL CHECK (lead_revision > 0),
    -- the delivery that holds it
    holder        uuid        NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (program_id, lead_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
