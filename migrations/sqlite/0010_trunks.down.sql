-- Runs train all of their steps again.
UPDATE work
SET cost_flops = (SELECT runs.flops_exact FROM runs WHERE runs.id = work.id)
WHERE kind = 'run' AND n_attempts = 0 AND id IN (SELECT run_id FROM trunks);
UPDATE work
SET state = 'queued'
WHERE kind = 'run' AND state = 'waiting'
    AND depends_on IN (SELECT id FROM work WHERE state = 'succeeded');
DROP TABLE trunks;
ALTER TABLE checkpoints DROP COLUMN failed_run_id;
