-- When later checkpoints came to stand in for a rolling one, and when its files were removed.
ALTER TABLE checkpoints ADD COLUMN superseded_at_ms BIGINT;
ALTER TABLE checkpoints ADD COLUMN removed_at_ms BIGINT;

-- The few that may be superseded, and those whose files are still there.
CREATE INDEX checkpoints_rolling ON checkpoints (run_id, step)
    WHERE is_data_point = 0 AND superseded_at_ms IS NULL;
CREATE INDEX checkpoints_to_remove ON checkpoints (run_id)
    WHERE superseded_at_ms IS NOT NULL AND removed_at_ms IS NULL;
