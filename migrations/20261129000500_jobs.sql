-- Jobs: named work that one replica at a time does by the clock or on request, and a record of how its runs went.
-- The lease that a run is guarded by is a row of `leases`.

CREATE TABLE jobs (
    name           text        PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    next_due_at    timestamptz NOT NULL,
    -- when a person asked for a run that has not begun yet
    requested_at   timestamptz,
    -- failed runs in a row; the wait before the next try grows with it
    failures       integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    -- the end of the last run, also of one that had nothing to do and left no record
    last_ended_at  timestamptz,
    -- the run under way; still there without a lease, its process has died
    run_id         uuid,
    run_trigger    text        CHECK (run_trigger IN ('schedule', 'manual', 'catch_up')),
    run_holder     uuid,
    run_started_at timestamptz,
    run_rows       bigint      NOT NULL DEFAULT 0 CHECK (run_rows >= 0),
    CHECK (num_nonnulls(run_id, run_trigger, run_holder, run_started_at) IN (0, 4))
) WITH (fillfactor = 50);

-- Runs that have ended and did something, failed, were interrupted, or were asked for by a person.
CREATE TABLE job_runs (
    id         uuid        PRIMARY KEY,
    job        text        NOT NULL,
    trigger    text        NOT NULL CHECK (trigger IN ('schedule', 'manual', 'catch_up')),
    holder     uuid        NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    rows       bigint      NOT NULL CHECK (rows >= 0),
    outcome    text        NOT NULL CHECK (outcome IN ('done', 'failed', 'interrupted')),
    -- failed runs in a row are one record: `started_at` is of the first, `ended_at` of the last
    attempts   integer     NOT NULL DEFAULT 1 CHECK (attempts > 0),
    -- for operators, without personal data
    detail     text
);
CREATE INDEX job_runs_by_job ON job_runs (job, started_at);
CREATE INDEX job_runs_by_start ON job_runs (started_at);
