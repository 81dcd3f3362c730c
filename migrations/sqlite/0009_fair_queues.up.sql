-- FLOPs of the runs that were begun for a study, charged once and for good: a study that gives up a
-- run gets nothing back, and a tick sums up nothing.
ALTER TABLE studies ADD COLUMN spent_flops REAL NOT NULL DEFAULT 0;

UPDATE studies
SET spent_flops = COALESCE((
    SELECT SUM(begun.cost_flops)
    FROM work AS begun
    WHERE begun.study_id = studies.id AND begun.kind = 'run' AND begun.n_attempts > 0
), 0);

-- Preparations are few; the evaluations of each study are found without the others'.
DROP INDEX work_beside_runs;
CREATE INDEX work_to_prepare ON work (state, is_held, priority DESC) WHERE kind = 'preparation';
CREATE INDEX work_to_evaluate ON work (study_id, state, is_held, priority DESC, cost_flops DESC)
WHERE kind = 'evaluation';

-- A worker that registers finds those of its name.
CREATE INDEX workers_by_name ON workers (name, hostname);
