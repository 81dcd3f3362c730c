SELECT
    a.work_id,
    a.worker_id,
    a.state AS attempt_state,
    a.ended_as,
    CASE w.kind
        WHEN 'run' THEN (
            SELECT COUNT(*)
            FROM runs r
            JOIN checkpoints c ON c.run_id = r.id AND c.step = r.steps
                AND c.refused_reason IS NULL
            WHERE r.id = w.id
        )
        WHEN 'evaluation' THEN (
            SELECT COUNT(*)
            FROM evaluations e
            WHERE e.id = w.id AND e.result_name IS NOT NULL
        )
        ELSE (
            SELECT COUNT(*)
            FROM preparations p
            WHERE p.id = w.id AND p.manifest_key IS NOT NULL
        )
    END AS n_results,
    w.state,
    w.lease_token,
    w.lease_attempt,
    w.lease_worker_id,
    w.backoff_until_ms,
    w.failed_end,
    w.depends_on,
    w.n_attempts,
    w.n_failures,
    w.n_losses,
    w.max_failures,
    w.is_held,
    w.failures_json,
    w.retries_json
FROM attempts a
JOIN work w ON w.id = a.work_id
WHERE a.lease_token = ?
