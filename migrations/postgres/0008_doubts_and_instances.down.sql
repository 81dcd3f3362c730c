-- An older build knows only the workers that a log rule keeps work from.
UPDATE work SET excluded_json = '{}' WHERE excluded_json LIKE '%{"failed":%';
ALTER TABLE workers DROP COLUMN instance;
ALTER TABLE checkpoints DROP COLUMN failed_attempt;
