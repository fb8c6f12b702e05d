-- The causes of what was suppressed before there were causes. From the trigger on, newer rows have theirs.
INSERT INTO suppression_causes (organisation_id, id, program_id, kind, subject_index, index_version, cause, created_at,
                                created_by, applied_at)
SELECT p.organisation_id, gen_random_uuid(), s.program_id, 'email', s.recipient_index, s.index_version,
       CASE s.reason WHEN 'unsubscribed' THEN 'objection' ELSE s.reason END, s.created_at, 'process:migration', now()
FROM suppressions s JOIN programs p ON p.id = s.program_id
ORDER BY s.recipient_index
ON CONFLICT DO NOTHING;
