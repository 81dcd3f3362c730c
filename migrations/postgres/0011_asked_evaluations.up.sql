-- What each study asks to be measured: of a run that two studies share, each is judged and shown by
-- its own measurements. `sequences` is 0 where the whole validation split is meant.
CREATE TABLE asked_evaluations (
    study_id TEXT COLLATE "C" NOT NULL REFERENCES studies (id),
    task TEXT COLLATE "C" NOT NULL,
    sequences BIGINT NOT NULL,
    PRIMARY KEY (study_id, task, sequences)
);

INSERT INTO asked_evaluations (study_id, task, sequences)
SELECT DISTINCT studies.id, asked.value ->> 'task',
    COALESCE(CAST(asked.value ->> 'sequences' AS BIGINT), 0)
FROM studies
CROSS JOIN LATERAL json_array_elements(CAST(studies.evaluate_json AS JSON)) AS asked (value);

ALTER TABLE evaluations ADD COLUMN sequences BIGINT NOT NULL DEFAULT 0;

UPDATE evaluations
SET sequences = COALESCE(CAST(CAST(config_json AS JSON) ->> 'sequences' AS BIGINT), 0);
