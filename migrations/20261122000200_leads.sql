-- Leads, their keys, what was refused, and how each collection went.
-- Columns of type bytea are sealed (a lead's under its own key); reports use the columns beside them.

CREATE TABLE leads (
    program_id     uuid        NOT NULL REFERENCES programs (id),
    id             uuid        NOT NULL,
    source         text        NOT NULL CHECK (source ~ '^[a-z0-9_-]{1,32}$'),
    name           bytea,
    username       bytea,
    email          bytea,
    profile_url    bytea,
    follower_count bigint      CHECK (follower_count >= 0),
    bio            bytea,
    verified       boolean     NOT NULL DEFAULT false,
    location       bytea,
    country        text        CHECK (country ~ '^[A-Z]{2}$'),
    username_index bytea       NOT NULL CHECK (octet_length(username_index) = 16),
    email_index    bytea       CHECK (octet_length(email_index) = 16),
    -- version of the index key and of the normalisation
    index_version  smallint    NOT NULL,
    revision       integer     NOT NULL DEFAULT 1 CHECK (revision > 0),
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (program_id, id),
    UNIQUE (program_id, source, username_index)
) WITH (fillfactor = 90);

-- Ciphertext does not compress: EXTERNAL spares the attempt.
ALTER TABLE leads
    ALTER COLUMN name SET STORAGE EXTERNAL,
    ALTER COLUMN username SET STORAGE EXTERNAL,
    ALTER COLUMN email SET STORAGE EXTERNAL,
    ALTER COLUMN profile_url SET STORAGE EXTERNAL,
    ALTER COLUMN bio SET STORAGE EXTERNAL,
    ALTER COLUMN location SET STORAGE EXTERNAL;

CREATE INDEX leads_by_email ON leads (program_id, email_index) WHERE email_index IS NOT NULL;

-- One data key per lead. Deleting the row is the erasure: nothing sealed under the key can be read again.
CREATE TABLE lead_keys (
    program_id  uuid  NOT NULL,
    lead_id     uuid  NOT NULL,
    wrapped_key bytea NOT NULL,
    PRIMARY KEY (program_id, lead_id),
    FOREIGN KEY (program_id, lead_id) REFERENCES leads (program_id, id)
);

CREATE TABLE collection_runs (
    program_id    uuid        NOT NULL,
    id            uuid        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('import', 'simulation', 'http')),
    source_digest bytea       CHECK (octet_length(source_digest) = 32),
    accepted      bigint      NOT NULL DEFAULT 0,
    updated       bigint      NOT NULL DEFAULT 0,
    duplicates    bigint      NOT NULL DEFAULT 0,
    rejected      bigint      NOT NULL DEFAULT 0,
    -- rejected, less the rows that an earlier run over the same source had refused already
    rejected_new  bigint      NOT NULL DEFAULT 0,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    PRIMARY KEY (program_id, id)
) WITH (fillfactor = 50);

CREATE TABLE rejected_leads (
    program_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    run_id         uuid        NOT NULL,
    source_digest  bytea       NOT NULL CHECK (octet_length(source_digest) = 32),
    line           bigint      NOT NULL CHECK (line >= 0),
    reason         text        NOT NULL
                   CHECK (reason IN ('missing', 'invalid', 'too_large', 'encoding', 'malformed', 'erased')),
    field          text        NOT NULL,
    detail         text        NOT NULL,
    -- the beginning of the row, sealed under the program's reject key
    raw            bytea       NOT NULL,
    username_index bytea       CHECK (octet_length(username_index) = 16),
    email_index    bytea       CHECK (octet_length(email_index) = 16),
    index_version  smallint    NOT NULL,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (program_id, id),
    UNIQUE (program_id, source_digest, line)
);
ALTER TABLE rejected_leads ALTER COLUMN raw SET STORAGE EXTERNAL;
CREATE INDEX rejected_leads_by_email ON rejected_leads (program_id, email_index) WHERE email_index IS NOT NULL;
CREATE INDEX rejected_leads_by_username ON rejected_leads (program_id, username_index) WHERE username_index IS NOT NULL;

-- Answers to HTTP requests that carried an Idempotency-Key, written in the transaction of the request they answer.
CREATE TABLE idempotent_answers (
    program_id   uuid        NOT NULL,
    key_hash     bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    request_hash bytea       NOT NULL CHECK (octet_length(request_hash) = 32),
    answer       jsonb       NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (program_id, key_hash)
);
