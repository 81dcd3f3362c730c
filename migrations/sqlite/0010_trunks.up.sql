-- Runs that differ in their length only train their common steps once. A run keeps a checkpoint after
-- the last step that it has in common with longer ones, and may go on from the one that another run
-- keeps.
CREATE TABLE trunks (
    run_id TEXT PRIMARY KEY REFERENCES runs (id),
    steps INTEGER NOT NULL,
    from_run_id TEXT REFERENCES runs (id),
    from_step INTEGER,
    CHECK ((from_run_id IS NULL) = (from_step IS NULL))
);

-- Who waits for a run that ends or keeps its checkpoint.
CREATE INDEX trunks_by_source ON trunks (from_run_id) WHERE from_run_id IS NOT NULL;

-- Whose attempt found a checkpoint damaged, where it was not one of its own run.
ALTER TABLE checkpoints ADD COLUMN failed_run_id TEXT;
