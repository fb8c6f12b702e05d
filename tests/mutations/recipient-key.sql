-- Mutation: two mails of one campaign may hold the same recipient
-- Scenarios: half_open rolling
-- Complaint: mails beyond the first for one person
ALTER TABLE outreach DROP CONSTRAINT outreach_program_id_recipient_key_campaign_step_key;
