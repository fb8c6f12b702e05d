-- Events on their way to RabbitMQ, and what the reconciler has to remember.

-- Written in the transaction of the change that an event tells of; deleted once the broker has confirmed it. A row
-- belongs to its writer until available_at, then to any sweeper; the rows of one batch share that instant, which is why
-- one index is enough to delete them by.
CREATE TABLE outbox (
    id           uuid        NOT NULL,
    available_at timestamptz NOT NULL,
    -- the whole envelope
    envelope     bytea       NOT NULL,
    -- one work queue, for retries and re-emissions; null for the exchange
    queue        text        CHECK (queue IN ('lead.created', 'lead.enriched')),
    traceparent  text,
    tracestate   text,
    created_at   timestamptz NOT NULL
) WITH (
    fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);
CREATE INDEX outbox_by_availability ON outbox (available_at);

-- Work that one replica at a time does.
CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     uuid        NOT NULL,
    expires_at timestamptz NOT NULL
);

-- When a work queue was last seen empty: what is older and still unfinished has lost its message.
CREATE TABLE queue_observations (
    queue    text        PRIMARY KEY,
    empty_at timestamptz NOT NULL
);
