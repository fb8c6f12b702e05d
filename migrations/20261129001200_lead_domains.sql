-- By which domains a lead's address is covered: keyed hashes of its domain, and of the wildcards above it.
ALTER TABLE leads
    ADD COLUMN domain_indexes bytea[],
    -- the email_index that they were made for: a release that doesn't know them changes the address alone
    ADD COLUMN domain_indexes_of bytea;
