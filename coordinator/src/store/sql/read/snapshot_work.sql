SELECT
    w.id,
    w.state,
    w.lease_token,
    w.lease_attempt,
    w.lease_worker_id,
    w.n_attempts,
    w.n_failures,
    w.n_losses,
    w.depends_on,
    w.is_held,
    CAST(CASE WHEN EXISTS (
        SELECT 1
        FROM trunks t
        JOIN work source ON source.id = t.from_run_id
        WHERE t.run_id = w.id
            AND source.state IN ('waiting', 'queued', 'leased', 'backoff')
            AND (source.is_held = 0 OR w.is_held = 1)
            AND (source.state = 'leased' OR source.study_id = w.study_id)
            AND NOT EXISTS (
                SELECT 1
                FROM checkpoints k
                WHERE k.run_id = t.from_run_id AND k.step >= t.from_step
                    AND k.refused_reason IS NULL
            )
    ) THEN 1 ELSE 0 END AS BIGINT) AS waits_for_trunk,
    -- What the live studies want of a run holds for its evaluations too. Whether data is held is
    -- settled with the verbs that people give, and not with each end of a run that needs it.
    CASE WHEN w.kind <> 'preparation' THEN COALESCE((
        SELECT MIN(s.is_paused)
        FROM cells c
        JOIN studies s ON s.id = c.study_id
        WHERE c.run_id = COALESCE(e.run_id, w.id) AND s.is_cancelled = 0
    ), 0) END AS should_be_held,
    CASE w.kind
        WHEN 'run' THEN (
            SELECT COUNT(*)
            FROM runs r
            JOIN checkpoints k ON k.run_id = r.id AND k.step = r.steps
            WHERE r.id = w.id
        )
        WHEN 'evaluation' THEN CASE WHEN e.result_name IS NOT NULL THEN 1 ELSE 0 END
        ELSE (
            SELECT COUNT(*)
            FROM preparations p
            WHERE p.id = w.id AND p.manifest_key IS NOT NULL
        )
    END AS n_results
FROM work w
LEFT JOIN evaluations e ON e.id = w.id
ORDER BY w.id
