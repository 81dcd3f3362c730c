-- What each study asks to be measured: of a run that two studies share, each is judged and shown by
-- its own measurements. `sequences` is 0 where the whole validation split is meant.
CREATE TABLE asked_evaluations (
    study_id TEXT NOT NULL REFERENCES studies (id),
    task TEXT NOT NULL,
    sequences INTEGER NOT NULL,
    PRIMARY KEY (study_id, task, sequences)
);

INSERT INTO asked_evaluations (study_id, task, sequences)
SELECT DISTINCT studies.id, json_extract(asked.value, '$.task'),
    COALESCE(json_extract(asked.value, '$.sequences'), 0)
FROM studies
JOIN json_each(studies.evaluate_json) AS asked;

ALTER TABLE evaluations ADD COLUMN sequences INTEGER NOT NULL DEFAULT 0;

UPDATE evaluations
SET sequences = COALESCE(json_extract(config_json, '$.sequences'), 0);
