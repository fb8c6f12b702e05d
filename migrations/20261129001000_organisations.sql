-- Organisations: the controllers (GDPR Art. 4), above programs. An organisation owns the key of blind indexes, which each of its
-- programs holds a copy of, and the suppressions that are for all of its programs.
--
-- Each program that is there gets an organisation of its own with the same id and the same wrapped keys: wrapping binds them to
-- that id, and the first of them is the index key, so nothing has to be unsealed.
CREATE TABLE organisations (
    id           uuid        PRIMARY KEY,
    slug         text        NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    name         text        NOT NULL CHECK (name <> ''),
    wrapped_keys bytea       NOT NULL,
    created_at   timestamptz NOT NULL
);

ALTER TABLE programs ADD COLUMN organisation_id uuid;
INSERT INTO organisations (id, slug, name, wrapped_keys, created_at)
SELECT id, slug, name, wrapped_keys, created_at FROM programs;
UPDATE programs SET organisation_id = id;
ALTER TABLE programs
    ADD CONSTRAINT programs_organisation FOREIGN KEY (organisation_id) REFERENCES organisations (id) NOT VALID,
    ADD CONSTRAINT programs_organisation_known CHECK (organisation_id IS NOT NULL) NOT VALID;

-- A program that names no organisation, such as one of a release that doesn't know of them, gets one of its own. Of a program
-- whose short name is taken nothing will be stored, so it gets none: it is given that of the other, as constraints ask for one.
CREATE FUNCTION give_program_an_organisation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.organisation_id IS NOT NULL THEN
        RETURN NEW;
    END IF;
    SELECT organisation_id INTO NEW.organisation_id FROM programs WHERE slug = NEW.slug;
    IF NEW.organisation_id IS NOT NULL THEN
        RETURN NEW;
    END IF;
    INSERT INTO organisations (id, slug, name, wrapped_keys, created_at)
    VALUES (NEW.id, NEW.slug, NEW.name, NEW.wrapped_keys, NEW.created_at) ON CONFLICT (slug) DO NOTHING;
    IF NOT FOUND THEN
        -- The name is an organisation's, or somebody has created the same program at the same moment.
        SELECT organisation_id INTO NEW.organisation_id FROM programs WHERE slug = NEW.slug;
        IF NEW.organisation_id IS NOT NULL THEN
            RETURN NEW;
        END IF;
        INSERT INTO organisations (id, slug, name, wrapped_keys, created_at)
        VALUES (NEW.id, 'p-' || NEW.id, NEW.name, NEW.wrapped_keys, NEW.created_at);
    END IF;
    NEW.organisation_id := NEW.id;
    RETURN NEW;
END
$$;
CREATE TRIGGER program_organisation BEFORE INSERT ON programs
    FOR EACH ROW EXECUTE FUNCTION give_program_an_organisation();
