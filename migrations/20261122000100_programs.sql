-- What the schema itself needs to say, and the programs (tenants) that every other row belongs to.

-- The lowest program version that may use this schema; raised by the migration that takes something away.
CREATE TABLE schema_requirements (
    singleton               boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    minimum_program_version integer NOT NULL CHECK (minimum_program_version > 0)
);
INSERT INTO schema_requirements (minimum_program_version) VALUES (1);

CREATE TABLE programs (
    id             uuid        PRIMARY KEY,
    slug           text        NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    name           text        NOT NULL CHECK (name <> ''),
    sender_name    text        NOT NULL,
    sender_email   text,
    reply_to       text,
    postal_address text,
    privacy_url    text,
    threshold      smallint    NOT NULL DEFAULT 70 CHECK (threshold BETWEEN 0 AND 100),
    niches         text[]      NOT NULL DEFAULT '{}',
    product        text        NOT NULL DEFAULT '',
    basis          text        NOT NULL DEFAULT 'legitimate_interest' CHECK (basis IN ('legitimate_interest', 'consent')),
    daily_cap      integer     CHECK (daily_cap > 0),
    paused         boolean     NOT NULL DEFAULT false,
    -- index, token and reject keys of the program, wrapped by the master key
    wrapped_keys   bytea       NOT NULL,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

-- Keys for the HTTP ingest: the key names its program, so the look-up stays within it; only a hash is stored.
CREATE TABLE api_keys (
    program_id uuid        NOT NULL,
    id         uuid        NOT NULL,
    key_hash   bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
    label      text        NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (program_id, id),
    UNIQUE (program_id, key_hash)
);
