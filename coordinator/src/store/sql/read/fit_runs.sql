SELECT
    c.run_id,
    c.name,
    c.axis_values_json,
    c.budget_flops,
    c.data_point_steps_json,
    w.state,
    r.parameters_non_embedding,
    r.parameters_total,
    r.batch_tokens,
    r.steps,
    r.flops_exact,
    r.flops_published,
    r.config_json,
    p.n_training_tokens,
    a.ended_as,
    COALESCE(CASE WHEN a.ended_as <> 'succeeded' THEN a.message END, '') AS message
FROM cells c
JOIN runs r ON r.id = c.run_id
JOIN work w ON w.id = r.id
JOIN preparations p ON p.id = r.preparation_id
LEFT JOIN attempts a ON a.work_id = r.id AND a.attempt = w.n_attempts
WHERE c.study_id = ?1
ORDER BY c.position, c.name
