-- What a mail's plan and its retries need to remember.

-- When a mail server was first asked to take this mail: what is tried for days is counted from here, not from the plan.
ALTER TABLE outreach ADD COLUMN first_attempt_at timestamptz;

ALTER TABLE programs
    -- rises with each change of the settings: whoever changes them names the version that was read
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    -- rises with each change of what decisions depend on: threshold, basis, sender, postal address
    ADD COLUMN rules_version integer NOT NULL DEFAULT 1,
    ADD COLUMN rules_changed_at timestamptz,
    -- when the last complete re-evaluation of decided leads began, and by which version of the law's rules
    ADD COLUMN rules_applied_at timestamptz,
    ADD COLUMN law_version smallint NOT NULL DEFAULT 1,
    -- leads that were analysed before this and have no mail out are analysed again
    ADD COLUMN niches_changed_at timestamptz,
    ADD COLUMN niches_applied_at timestamptz;

-- Since when no unsent mail to this recipient is left that was planned before; null: a job has yet to look.
ALTER TABLE suppressions ADD COLUMN applied_at timestamptz;
