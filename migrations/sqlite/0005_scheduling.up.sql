-- Shares, budgets, placement and log rules of a study; the study that work is granted for; who did what.
ALTER TABLE studies ADD COLUMN weight REAL NOT NULL DEFAULT 1.0;
-- Who applied it first; empty is nobody with a name.
ALTER TABLE studies ADD COLUMN user_name TEXT NOT NULL DEFAULT '';
ALTER TABLE studies ADD COLUMN budget_flops REAL;
ALTER TABLE studies ADD COLUMN placement_json TEXT NOT NULL DEFAULT '{}';
ALTER TABLE studies ADD COLUMN log_rules_json TEXT NOT NULL DEFAULT '[]';

-- Empty is nobody: preparations, and what no live study has. Of an evaluation it is its run's.
ALTER TABLE work ADD COLUMN study_id TEXT NOT NULL DEFAULT '';
-- The workers that it is not given to, each with the pattern of the log rule that says so.
ALTER TABLE work ADD COLUMN excluded_json TEXT NOT NULL DEFAULT '{}';

-- The estimate for one slot; 0 is not known.
ALTER TABLE runs ADD COLUMN memory_bytes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE workers ADD COLUMN labels_json TEXT NOT NULL DEFAULT '{}';

-- Empty is not known: the event is older than the column.
ALTER TABLE events ADD COLUMN actor TEXT NOT NULL DEFAULT '';

UPDATE work
SET study_id = COALESCE((
    SELECT studies.id
    FROM cells
    JOIN studies ON studies.id = cells.study_id
    WHERE cells.run_id = work.id AND studies.is_cancelled = 0
    ORDER BY studies.is_paused, studies.priority DESC, studies.id
    LIMIT 1
), '')
WHERE kind = 'run';

UPDATE work
SET study_id = (
    SELECT run.study_id
    FROM evaluations
    JOIN work AS run ON run.id = evaluations.run_id
    WHERE evaluations.id = work.id
)
WHERE kind = 'evaluation';

-- Evaluations and preparations are found without the runs.
CREATE INDEX work_beside_runs ON work (state, is_held, priority DESC, cost_flops DESC)
WHERE kind <> 'run';

-- The head of each study's queue is found without the others'.
CREATE INDEX work_by_study ON work (study_id, state, is_held, priority DESC, cost_flops DESC)
WHERE kind = 'run';
