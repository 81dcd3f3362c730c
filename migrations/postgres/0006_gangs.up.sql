-- A gang: an attempt with several members. Rank 0 is the attempt's own worker, under the attempt's own
-- token; every other member holds its slot by a token of its own, until the attempt is over or it
-- leaves.
ALTER TABLE attempts ADD COLUMN world_size BIGINT NOT NULL DEFAULT 1;

CREATE TABLE members (
    lease_token BIGINT PRIMARY KEY,
    attempt_token BIGINT NOT NULL REFERENCES attempts (lease_token),
    rank BIGINT NOT NULL CHECK (rank > 0),
    worker_id TEXT COLLATE "C" NOT NULL REFERENCES workers (id),
    is_held BIGINT NOT NULL DEFAULT 1 CHECK (is_held IN (0, 1)),
    UNIQUE (attempt_token, rank)
);

-- Who holds something now is found among all that ever did.
CREATE INDEX members_held ON members (worker_id) WHERE is_held = 1;
