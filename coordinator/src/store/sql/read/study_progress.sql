-- How much of each study is in which state: one row for each study, kind of work and state.
WITH study_runs AS (
    SELECT study_id, run_id,
        -- Cells of one study that share a run are planned alike. `[20,40]` becomes `,20,40,`.
        REPLACE(REPLACE(MIN(data_point_steps_json), '[', ','), ']', ',') AS data_point_steps
    FROM cells
    WHERE ?1 IS NULL OR study_id = ?1
    GROUP BY study_id, run_id
),
progress AS (
    SELECT
        sr.study_id,
        sr.data_point_steps,
        r.id,
        r.preparation_id,
        w.state,
        -- A run that goes on from another one's checkpoint costs the steps after it.
        w.cost_flops,
        CASE
            WHEN w.state = 'succeeded' THEN w.cost_flops
            ELSE GREATEST(0.0, w.cost_flops - r.flops_exact * (
                1.0 - LEAST(1.0, 1.0 * r.latest_step / GREATEST(r.steps, 1))
            ))
        END AS flops_done,
        CASE WHEN w.state = 'leased' THEN
            r.latest_tokens_per_second * r.flops_exact / GREATEST(1, r.steps * r.batch_tokens)
        END AS flops_per_second
    FROM study_runs sr
    JOIN runs r ON r.id = sr.run_id
    JOIN work w ON w.id = r.id
)
SELECT study_id, 'run' AS kind, state, COUNT(*) AS n,
    COALESCE(SUM(cost_flops), 0.0) AS flops_total,
    COALESCE(SUM(flops_done), 0.0) AS flops_done,
    SUM(flops_per_second) AS flops_per_second
FROM progress
GROUP BY study_id, state
UNION ALL
SELECT p.study_id, 'evaluation', w.state, COUNT(*), 0.0, 0.0, NULL
FROM progress p
JOIN evaluations e ON e.run_id = p.id
-- Another study that has the run may measure it otherwise, or elsewhere.
JOIN asked_evaluations q
    ON q.study_id = p.study_id AND q.task = e.task AND q.sequences = e.sequences
JOIN work w ON w.id = e.id
WHERE p.data_point_steps LIKE '%,' || CAST(e.step AS TEXT) || ',%'
GROUP BY p.study_id, w.state
UNION ALL
SELECT p.study_id, 'preparation', w.state, COUNT(DISTINCT w.id), 0.0, 0.0, NULL
FROM progress p
JOIN work w ON w.id = p.preparation_id
GROUP BY p.study_id, w.state
