DROP TABLE members;
ALTER TABLE attempts DROP COLUMN world_size;
