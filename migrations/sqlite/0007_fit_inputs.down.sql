DROP INDEX fits_by_time;
ALTER TABLE fits DROP COLUMN summary_json;
ALTER TABLE fits DROP COLUMN inputs_json;
