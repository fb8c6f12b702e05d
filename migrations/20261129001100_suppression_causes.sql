-- Why somebody must not be written to: one row per scope, subject and cause. `suppressions` stays what a claim looks at: whether
-- a recipient of a program is suppressed, for whichever causes.
CREATE TABLE suppression_causes (
    organisation_id uuid        NOT NULL,
    id              uuid        NOT NULL,
    -- null: for every program of the organisation
    program_id      uuid,
    kind            text        NOT NULL CHECK (kind IN ('email', 'handle', 'domain')),
    -- keyed hash of an address, a user name, a domain, or of `*.` and a domain
    subject_index   bytea       NOT NULL CHECK (octet_length(subject_index) = 16),
    index_version   smallint    NOT NULL,
    -- whether it is the domains below one
    subdomains      boolean     NOT NULL DEFAULT false CHECK (NOT subdomains OR kind = 'domain'),
    cause           text        NOT NULL
                    CHECK (cause IN ('objection', 'hard_bounce', 'complaint', 'manual', 'erased', 'do_not_contact')),
    list            text        CHECK (list IN ('customer', 'partner', 'colleague', 'competitor')),
    -- a person's reason, sealed: it may name somebody
    evidence        bytea,
    created_at      timestamptz NOT NULL,
    -- who: `person:` and the name of the account on the machine, or the process that did it
    created_by      text        NOT NULL,
    -- since when all leads that it covers have their row in suppressions, also those that were stored at the same moment
    applied_at      timestamptz,
    PRIMARY KEY (organisation_id, id),
    -- By subject first, which a look begins with: it needs no statistics of an organisation that is new.
    UNIQUE NULLS NOT DISTINCT (subject_index, organisation_id, program_id, kind, cause),
    CHECK ((cause = 'do_not_contact') = (list IS NOT NULL))
);
ALTER TABLE suppression_causes ALTER COLUMN evidence SET STORAGE EXTERNAL;
CREATE INDEX suppression_causes_to_apply ON suppression_causes (organisation_id, id) WHERE applied_at IS NULL;
-- Whether a new lead can be covered by anything but a suppression of its program's own.
CREATE INDEX suppression_causes_wide ON suppression_causes (organisation_id) WHERE kind <> 'email' OR program_id IS NULL;

-- What was lifted, by whom, and the consent that it rests on.
CREATE TABLE suppression_lifts (
    organisation_id uuid        NOT NULL,
    id              uuid        NOT NULL,
    program_id      uuid,
    kind            text        NOT NULL CHECK (kind IN ('email', 'handle', 'domain')),
    subject_index   bytea       NOT NULL CHECK (octet_length(subject_index) = 16),
    cause           text        NOT NULL,
    list            text,
    -- sealed: under the key of this lead of this program, or where there is none, of the program or the organisation
    evidence        bytea,
    evidence_program_id uuid,
    evidence_lead_id uuid,
    created_at      timestamptz NOT NULL,
    created_by      text        NOT NULL,
    -- since when the leads that it covered are decided about again
    applied_at      timestamptz,
    PRIMARY KEY (organisation_id, id),
    CHECK ((evidence_program_id IS NULL) = (evidence_lead_id IS NULL))
);
ALTER TABLE suppression_lifts ALTER COLUMN evidence SET STORAGE EXTERNAL;
CREATE INDEX suppression_lifts_to_apply ON suppression_lifts (organisation_id, id) WHERE applied_at IS NULL;

ALTER TABLE suppressions
    -- whether the writer has recorded the cause by itself; releases that don't know of causes leave that to a trigger
    ADD COLUMN cause_recorded boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT suppressions_reason_check,
    ADD CONSTRAINT suppressions_reason_check
        CHECK (reason IN ('unsubscribed', 'hard_bounce', 'complaint', 'manual', 'erased', 'do_not_contact')) NOT VALID;

-- Before the insert: it fires also for a recipient who is suppressed already, for whom ON CONFLICT DO NOTHING stores nothing.
CREATE FUNCTION record_suppression_cause() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    organisation uuid;
BEGIN
    SELECT organisation_id INTO organisation FROM programs WHERE id = NEW.program_id;
    IF organisation IS NOT NULL THEN
        -- Whoever lifts a cause has this lock alone: see store::suppressions.
        PERFORM pg_advisory_xact_lock_shared(hashtextextended(organisation::text, 0));
        INSERT INTO suppression_causes (organisation_id, id, program_id, kind, subject_index, index_version, cause, list,
                                        created_at, created_by, applied_at)
        VALUES (organisation, gen_random_uuid(), NEW.program_id, 'email', NEW.recipient_index, NEW.index_version,
                CASE NEW.reason WHEN 'unsubscribed' THEN 'objection' ELSE NEW.reason END, NULL,
                NEW.created_at, 'process:older-release', now())
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER suppression_of_an_older_release BEFORE INSERT ON suppressions
    FOR EACH ROW WHEN (NOT NEW.cause_recorded) EXECUTE FUNCTION record_suppression_cause();
