DROP INDEX checkpoints_to_remove;
DROP INDEX checkpoints_rolling;
ALTER TABLE checkpoints DROP COLUMN removed_at_ms;
ALTER TABLE checkpoints DROP COLUMN superseded_at_ms;
