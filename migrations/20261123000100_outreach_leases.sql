-- Leases that ran out are looked for every second. By `outreach_wanting_attention` that look walks over every mail that is
-- due, which can be a million; there are never more leases than mails in hand.
CREATE INDEX outreach_leased ON outreach (program_id, due_at) WHERE state IN ('connecting', 'transmitting');
