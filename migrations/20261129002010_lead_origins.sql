-- Where each lead came from first. The network is leads.source, the time leads.created_at; what all leads of a run share is in the
-- run's row: file, interface or simulation, and the terms under which the data may be used. Null: taken in by an older release.

ALTER TABLE leads
    ADD COLUMN run_id uuid,
    -- the line of the file, or the item's position
    ADD COLUMN line bigint,
    -- how the country was found out: 1 stated by the source, 2 from the location
    ADD COLUMN country_source smallint;

ALTER TABLE collection_runs
    -- sealed under the program's key for rejects: a file may be named after a person
    ADD COLUMN file_name bytea,
    -- as the operator named them
    ADD COLUMN terms text;
