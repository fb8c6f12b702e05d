-- What lets a mail go out: by which rule, of which version, and until when. Null while nothing does, and in rows that an older
-- release has planned: those are planned again before they are sent.

ALTER TABLE outreach
    ADD COLUMN law_version smallint,
    ADD COLUMN law_rule text,
    -- when the consent expires that the plan rests on
    ADD COLUMN permitted_until timestamptz;
