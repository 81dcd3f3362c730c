-- The first argument is a study whose cells are joined, or NULL.
SELECT
    r.id,
    COALESCE(c.name, r.id) AS name,
    COALESCE(s.name, '') AS study,
    COALESCE(c.axis_values_json, '{}') AS axis_values_json,
    c.budget_flops,
    w.state,
    w.lease_worker_id AS worker_id,
    k.name AS worker,
    w.n_attempts,
    r.parameters_non_embedding,
    r.parameters_total,
    r.steps,
    r.latest_step AS step,
    r.steps * r.batch_tokens AS tokens,
    r.flops_exact,
    r.flops_published,
    r.has_changed_numerics,
    r.latest_train_loss_nats AS train_loss_nats,
    r.latest_tokens_per_second AS tokens_per_second,
    (
        SELECT e.value
        FROM evaluations e
        WHERE e.run_id = r.id AND e.task = 'validation_loss' AND e.value IS NOT NULL
            -- Of a run that is over only the loss at its end is its result.
            AND (
                e.step = r.steps
                OR w.state NOT IN ('succeeded', 'failed', 'cancelled', 'diverged')
            )
            -- Another study that has the run may measure it otherwise, or elsewhere.
            AND (?1 IS NULL OR (
                EXISTS (
                    SELECT *
                    FROM asked_evaluations q
                    WHERE q.study_id = ?1 AND q.task = e.task AND q.sequences = e.sequences
                )
                -- `[20,40]` becomes `,20,40,`.
                AND REPLACE(REPLACE(c.data_point_steps_json, '[', ','), ']', ',')
                    LIKE '%,' || CAST(e.step AS TEXT) || ',%'
            ))
        -- A later attempt's weights are the run's; of several measurements that of the most tokens.
        ORDER BY e.step DESC, e.attempt DESC, COALESCE(e.n_tokens, 0) DESC, e.id
        LIMIT 1
    ) AS validation_loss_nats,
    CASE
        WHEN a.ended_as IS NOT NULL AND a.ended_as <> 'succeeded' THEN a.message
        -- It was never granted: what went wrong was said by the preparation it waited for.
        WHEN w.state = 'failed' AND w.n_attempts = 0 THEN COALESCE((
            SELECT 'its data could not be prepared: ' || p.message
            FROM attempts p
            WHERE p.work_id = r.preparation_id
            ORDER BY p.attempt DESC
            LIMIT 1
        ), 'its data could not be prepared')
        ELSE ''
    END AS message
FROM runs r
JOIN work w ON w.id = r.id
LEFT JOIN workers k ON k.id = w.lease_worker_id
LEFT JOIN attempts a ON a.work_id = r.id AND a.attempt = w.n_attempts
