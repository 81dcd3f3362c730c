-- Whether a worker that is lost takes nothing more when it comes back.
ALTER TABLE workers ADD COLUMN is_drained INTEGER NOT NULL DEFAULT 0 CHECK (is_drained IN (0, 1));
