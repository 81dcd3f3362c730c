ALTER TABLE workers DROP COLUMN is_drained;
