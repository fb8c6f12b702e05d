-- What an analyst said about a lead, and what was decided.

CREATE TABLE enriched_leads (
    program_id         uuid        NOT NULL,
    lead_id            uuid        NOT NULL,
    id                 uuid        NOT NULL,
    niche              text        NOT NULL,
    score              smallint    NOT NULL CHECK (score BETWEEN 0 AND 100),
    notes              bytea,
    message            bytea,
    contacted          boolean     NOT NULL DEFAULT false,
    sent               boolean     NOT NULL DEFAULT false,
    reviewed           boolean     NOT NULL DEFAULT false,
    compliant          boolean     NOT NULL,
    compliance_notes   bytea,
    enrichment_version integer     NOT NULL DEFAULT 1 CHECK (enrichment_version > 0),
    ai_confidence      real        NOT NULL CHECK (ai_confidence BETWEEN 0 AND 1),
    provider           text        NOT NULL CHECK (provider IN ('local', 'model', 'local_fallback')),
    fallback_reason    text,
    -- the revision of the lead that it was made from: an equal or older one never overwrites it
    lead_revision      integer     NOT NULL CHECK (lead_revision > 0),
    decision           text        CHECK (decision IN ('planned', 'held', 'declined')),
    decision_reasons   text[]      NOT NULL DEFAULT '{}',
    -- the enrichment that was decided about
    decided_version    integer,
    decided_at         timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (program_id, lead_id),
    FOREIGN KEY (program_id, lead_id) REFERENCES leads (program_id, id),
    CHECK ((decision IS NULL) = (decided_version IS NULL)),
    CHECK ((provider = 'local_fallback') = (fallback_reason IS NOT NULL))
) WITH (fillfactor = 80);

ALTER TABLE enriched_leads
    ALTER COLUMN notes SET STORAGE EXTERNAL,
    ALTER COLUMN message SET STORAGE EXTERNAL,
    ALTER COLUMN compliance_notes SET STORAGE EXTERNAL;
