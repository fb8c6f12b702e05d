-- What shows that a lead may be written to at an address, by the law of their country: consent, or where the address is published
-- for business. Evidence about one address says nothing about another, so each row names the address that it is about.
--
-- Most leads have none, so it isn't part of their rows. Deleting the lead's key erases it: who the texts are about, and what they
-- say, is sealed under that key.

CREATE TABLE contact_evidence (
    program_id      uuid        NOT NULL,
    lead_id         uuid        NOT NULL,
    recipient_index bytea       NOT NULL CHECK (octet_length(recipient_index) = 16),
    -- 1 consent, 2 published for business
    kind            smallint    NOT NULL CHECK (kind IN (1, 2)),
    index_version   smallint    NOT NULL,
    -- when the consent was given, or the address seen
    captured_at     timestamptz NOT NULL,
    expires_at      timestamptz CHECK (expires_at > captured_at),
    -- source, wording or page, with the times
    evidence        bytea       NOT NULL,
    -- where it came from: the run, and the line or item
    run_id          uuid        NOT NULL,
    line            bigint      NOT NULL CHECK (line >= 0),
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (program_id, lead_id, recipient_index, kind),
    FOREIGN KEY (program_id, lead_id) REFERENCES leads (program_id, id)
);
ALTER TABLE contact_evidence ALTER COLUMN evidence SET STORAGE EXTERNAL;
