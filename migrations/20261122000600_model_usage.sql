-- What was spent on a chat model, so that all replicas together keep to a day's limit.

CREATE TABLE model_usage (
    program_id uuid   NOT NULL,
    -- UTC
    day        date   NOT NULL,
    model      text   NOT NULL,
    -- of prompts and answers
    tokens     bigint NOT NULL CHECK (tokens >= 0),
    PRIMARY KEY (program_id, day, model)
) WITH (fillfactor = 80);
CREATE INDEX model_usage_by_day ON model_usage (day);
