DROP INDEX workers_by_name;
DROP INDEX work_to_evaluate;
DROP INDEX work_to_prepare;
CREATE INDEX work_beside_runs ON work (state, is_held, priority DESC, cost_flops DESC)
WHERE kind <> 'run';
ALTER TABLE studies DROP COLUMN spent_flops;
