-- Every change of a run's state was written to two indexes over all runs. What is asked across
-- studies is only what is leased and what is backing off, which are few rows of many.
DROP INDEX work_by_state;
CREATE INDEX work_leased ON work (lease_token) WHERE state = 'leased';
CREATE INDEX work_backing_off ON work (backoff_until_ms, id) WHERE state = 'backoff';
