DROP INDEX work_by_state;
CREATE INDEX work_by_state ON work (state, priority DESC, cost_flops DESC);
DROP INDEX work_by_dependency;
CREATE INDEX work_by_dependency ON work (depends_on) WHERE depends_on IS NOT NULL;

ALTER TABLE studies DROP COLUMN is_paused;
ALTER TABLE studies DROP COLUMN pause_reason;
ALTER TABLE work DROP COLUMN is_held;
ALTER TABLE work DROP COLUMN failures_json;
ALTER TABLE work DROP COLUMN retries_json;
