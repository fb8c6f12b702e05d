-- One row per intended mail, what was captured, and who must not be written to.

CREATE TYPE outreach_state AS ENUM (
    'queued', 'connecting', 'transmitting', 'sent', 'deferred', 'failed', 'uncertain', 'captured', 'held', 'cancelled'
);

CREATE TABLE outreach (
    program_id         uuid           NOT NULL,
    id                 uuid           NOT NULL,
    lead_id            uuid           NOT NULL,
    campaign           text           NOT NULL,
    step               smallint       NOT NULL CHECK (step > 0),
    recipient_index    bytea          NOT NULL CHECK (octet_length(recipient_index) = 16),
    -- the recipient, as long as this row is the one that may write to them; a duplicate and a cancelled row hold none
    recipient_key      bytea          CHECK (recipient_key = recipient_index),
    index_version      smallint       NOT NULL,
    state              outreach_state NOT NULL,
    reason             text,
    message_id         text           NOT NULL,
    enrichment_version integer        NOT NULL CHECK (enrichment_version > 0),
    attempts           integer        NOT NULL DEFAULT 0,
    -- when the row wants attention: the due time while it waits, the lease's end while it is sent, else null
    due_at             timestamptz,
    lease_token        uuid,
    reply_code         smallint,
    -- what the mail server said, sealed: it may name the recipient
    reply              bytea,
    sent_at            timestamptz,
    created_at         timestamptz    NOT NULL,
    updated_at         timestamptz    NOT NULL,
    PRIMARY KEY (program_id, id),
    UNIQUE (program_id, lead_id, campaign, step),
    UNIQUE (program_id, recipient_key, campaign, step),
    FOREIGN KEY (program_id, lead_id) REFERENCES leads (program_id, id),
    CHECK (state NOT IN ('queued', 'deferred', 'connecting', 'transmitting') OR due_at IS NOT NULL),
    CHECK (state NOT IN ('connecting', 'transmitting') OR lease_token IS NOT NULL),
    CHECK (state NOT IN ('held', 'cancelled', 'deferred', 'failed', 'uncertain') OR reason IS NOT NULL),
    CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
    -- whoever may write, or may have written, holds the recipient
    CHECK (state IN ('held', 'cancelled') OR recipient_key IS NOT NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX outreach_wanting_attention ON outreach (program_id, due_at) WHERE due_at IS NOT NULL;

CREATE TABLE captured_mails (
    program_id  uuid        NOT NULL,
    outreach_id uuid        NOT NULL,
    lead_id     uuid        NOT NULL,
    -- the complete message, compressed, then sealed under the lead's key
    mail        bytea       NOT NULL,
    captured_at timestamptz NOT NULL,
    PRIMARY KEY (program_id, outreach_id),
    FOREIGN KEY (program_id, outreach_id) REFERENCES outreach (program_id, id)
);
ALTER TABLE captured_mails ALTER COLUMN mail SET STORAGE EXTERNAL;

-- Outlives the lead: only the keyed hash of the address is here.
CREATE TABLE suppressions (
    program_id      uuid        NOT NULL,
    recipient_index bytea       NOT NULL CHECK (octet_length(recipient_index) = 16),
    index_version   smallint    NOT NULL,
    reason          text        NOT NULL CHECK (reason IN ('unsubscribed', 'hard_bounce', 'complaint', 'manual')),
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (program_id, recipient_index)
);

-- Mails started per program and window; taken in the transaction of the claim, so that all replicas share one limit.
CREATE TABLE send_budgets (
    program_id   uuid        NOT NULL,
    span         text        NOT NULL CHECK (span IN ('minute', 'day')),
    window_start timestamptz NOT NULL,
    used         integer     NOT NULL CHECK (used >= 0),
    PRIMARY KEY (program_id, span, window_start)
) WITH (fillfactor = 50);
