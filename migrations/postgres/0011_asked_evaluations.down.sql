ALTER TABLE evaluations DROP COLUMN sequences;
DROP TABLE asked_evaluations;
