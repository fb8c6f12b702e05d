-- The primary key becomes the youngest index again. Of two indexes that look equally good, PostgreSQL takes the younger one
-- (`get_relation_info` in plancat.c), and while a table is nearly empty every index that begins with `program_id` looks
-- equally good for `program_id = … AND id = …`. That plan stays in the session, for foreign keys and prepared statements
-- alike: each captured mail and each outcome then reads all rows of its program, until the next ANALYZE.
ALTER TABLE captured_mails DROP CONSTRAINT captured_mails_program_id_outreach_id_fkey;
ALTER TABLE outreach DROP CONSTRAINT outreach_pkey, ADD PRIMARY KEY (program_id, id);
ALTER TABLE captured_mails ADD FOREIGN KEY (program_id, outreach_id) REFERENCES outreach (program_id, id);
