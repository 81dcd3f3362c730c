-- The attempt that first found a checkpoint damaged: the next one that does has it refused.
ALTER TABLE checkpoints ADD COLUMN failed_attempt INTEGER;

-- Which process of its name and host a worker is: random, the agent's own. Empty is not known.
ALTER TABLE workers ADD COLUMN instance TEXT NOT NULL DEFAULT '';
