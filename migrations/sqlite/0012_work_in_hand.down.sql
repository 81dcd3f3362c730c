DROP INDEX work_backing_off;
DROP INDEX work_leased;
CREATE INDEX work_by_state ON work (state, is_held, priority DESC, cost_flops DESC);
