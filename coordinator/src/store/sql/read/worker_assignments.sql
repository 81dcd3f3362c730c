SELECT
    h.worker_id,
    h.rank,
    w.id AS work_id,
    w.kind,
    COALESCE((
        SELECT c.name
        FROM cells c
        JOIN studies s ON s.id = c.study_id
        WHERE c.run_id = COALESCE(r.id, e.run_id)
        ORDER BY s.created_at_ms, s.id, c.position
        LIMIT 1
    ), '') AS name,
    w.lease_attempt AS attempt,
    r.latest_step AS step,
    r.steps,
    r.batch_tokens,
    r.latest_train_loss_nats AS train_loss_nats,
    r.latest_tokens_per_second AS tokens_per_second
FROM (
    SELECT id, lease_worker_id AS worker_id, lease_token, 0 AS rank
    FROM work
    WHERE state = 'leased'
    UNION ALL
    SELECT a.work_id, m.worker_id, m.lease_token, m.rank
    FROM members m
    JOIN attempts a ON a.lease_token = m.attempt_token
    WHERE m.is_held = 1
) h
JOIN work w ON w.id = h.id
LEFT JOIN runs r ON r.id = w.id
LEFT JOIN evaluations e ON e.id = w.id
ORDER BY h.lease_token
