-- Why a program's mails stopped, and what mail servers said against its sender.

ALTER TABLE programs
    ADD COLUMN paused_reason text,
    ADD COLUMN paused_at timestamptz,
    -- the latest rest: until then nothing is claimed, because the mail server limits our account
    ADD COLUMN rest_from timestamptz,
    ADD COLUMN rest_until timestamptz,
    ADD COLUMN rest_reason text;

-- When a server first said that the recipient's mailbox is full: the mail is tried once more, a week later.
ALTER TABLE outreach ADD COLUMN mailbox_full_at timestamptz;

-- Which recipients' mails a server refused for what says something about the sender. A sender is paused by several different
-- recipients, never by one mail.
CREATE TABLE sender_refusals (
    program_id       uuid        NOT NULL,
    recipient_index  bytea       NOT NULL CHECK (octet_length(recipient_index) = 16),
    -- policy: the recipient's server refused the mail by its policy; sender: the sender or its authentication was refused;
    -- limited: our account was limited, and this recipient's mail began a rest
    kind             text        NOT NULL CHECK (kind IN ('policy', 'sender', 'limited')),
    -- the first of those that came less than a day after each other
    first_refused_at timestamptz NOT NULL DEFAULT now(),
    refused_at       timestamptz NOT NULL DEFAULT now(),
    -- a short code, such as smtp_550_5.7.1
    reason           text        NOT NULL,
    -- a person resumed the program after this: it doesn't count towards another pause
    counted          boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (program_id, recipient_index, kind)
);
