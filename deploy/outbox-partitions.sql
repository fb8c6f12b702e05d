-- The outbox in eight partitions, for a server where one table and its index have become the limit: see "Outbox
-- partitions" in PERFORMANCE.md. Run it once, by psql, as the owner of the table; services may keep running, they wait
-- for the moment it takes. The number of partitions is the 8 below; a power of two no larger than the server's cores.
BEGIN;
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;
ALTER TABLE outbox RENAME TO outbox_whole;
ALTER INDEX outbox_by_availability RENAME TO outbox_whole_by_availability;
CREATE TABLE outbox (LIKE outbox_whole INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY HASH (id);
CREATE INDEX outbox_by_availability ON outbox (available_at);
DO $$
DECLARE
    partitions CONSTANT integer := 8;
    -- a partitioned table has no settings of its own to inherit
    settings CONSTANT text := (SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = 'outbox_whole'::regclass);
BEGIN
    FOR number IN 0..partitions - 1 LOOP
        EXECUTE format('CREATE TABLE outbox_%s PARTITION OF outbox FOR VALUES WITH (MODULUS %s, REMAINDER %s) WITH (%s)',
                       number, partitions, number, settings);
    END LOOP;
END $$;
-- grants don't come with LIKE
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT a.grantee, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'outbox_whole'::regclass AND a.grantee <> c.relowner LOOP
        EXECUTE format('GRANT %s ON outbox TO %s', granted.privilege_type,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END);
    END LOOP;
END $$;
INSERT INTO outbox SELECT * FROM outbox_whole;
DROP TABLE outbox_whole;
COMMIT;
