-- Series keyed (run, attempt, name, step), many points a row: `bytes` and `tail` are columns of
-- steps and values, compressed without loss (`coordinator::store::sql::points::chunk`). The chunks
-- of one series and attempt do not overlap. The current truth of a step is the latest attempt's.
--
-- `points` keeps the rows of an older build until a coordinator has packed them, which it does
-- before it does anything else; then it stays empty.
CREATE TABLE point_series (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    attempt BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    n_points BIGINT NOT NULL,
    last_step BIGINT NOT NULL,
    -- The highest step in a chunk, -1 without one: what is in the tail lies behind it.
    chunked_to_step BIGINT NOT NULL,
    -- Points that are to be packed with later ones: those of the tail, and of the chunks that begin
    -- here or later.
    n_open BIGINT NOT NULL,
    open_from_step BIGINT NOT NULL,
    tail BYTEA NOT NULL,
    PRIMARY KEY (run_id, attempt, name)
);

CREATE TABLE point_chunks (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    name TEXT COLLATE "C" NOT NULL,
    attempt BIGINT NOT NULL,
    first_step BIGINT NOT NULL,
    last_step BIGINT NOT NULL,
    n_points BIGINT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (run_id, name, attempt, first_step)
);

-- They are compressed already.
ALTER TABLE point_series ALTER COLUMN tail SET STORAGE EXTERNAL;
ALTER TABLE point_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;
