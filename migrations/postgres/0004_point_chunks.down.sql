-- Only the program can turn chunks into rows, so a store that has some does not go back: the check
-- fails, and nothing is lost.
CREATE TABLE chunks_stay (
    n_points BIGINT NOT NULL CHECK (n_points = 0)
);

INSERT INTO chunks_stay (n_points)
SELECT n_points FROM point_series;

DROP TABLE chunks_stay;
DROP TABLE point_chunks;
DROP TABLE point_series;
