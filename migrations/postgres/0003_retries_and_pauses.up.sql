-- How often each way to fail is tried again (`domain::spec::RetryRules`), how often each happened
-- (`{"bug": 2}`), and studies that are paused. Work is held while every live study that wants it is
-- paused; the queue is read in the order of this index, so that held work costs nothing.
ALTER TABLE studies ADD COLUMN is_paused BIGINT NOT NULL DEFAULT 0 CHECK (is_paused IN (0, 1));
ALTER TABLE studies ADD COLUMN pause_reason TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN is_held BIGINT NOT NULL DEFAULT 0 CHECK (is_held IN (0, 1));
ALTER TABLE work ADD COLUMN failures_json TEXT COLLATE "C" NOT NULL DEFAULT '{}';
ALTER TABLE work ADD COLUMN retries_json TEXT COLLATE "C";

DROP INDEX work_by_state;
CREATE INDEX work_by_state ON work (state, is_held, priority DESC, cost_flops DESC);

-- What waits for data is found among the many that have it.
DROP INDEX work_by_dependency;
CREATE INDEX work_by_dependency ON work (depends_on, state) WHERE depends_on IS NOT NULL;
