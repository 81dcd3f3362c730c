-- The store of a coordinator: studies, the work they need, who does it, and what came out.
-- Times are milliseconds since the Unix epoch and for display and back-off only; leases live on the
-- leader's monotonic clock. Identifiers and hashes are text.

CREATE TABLE lease_tokens (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    last_token INTEGER NOT NULL
);

INSERT INTO lease_tokens (only_row, last_token)
VALUES (1, 0);

CREATE TABLE studies (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    spec_text TEXT NOT NULL,
    spec_file TEXT NOT NULL,
    description TEXT NOT NULL,
    fit_spec_json TEXT NOT NULL,
    evaluate_json TEXT NOT NULL,
    priority INTEGER NOT NULL,
    is_cancelled INTEGER NOT NULL DEFAULT 0 CHECK (is_cancelled IN (0, 1)),
    cancel_reason TEXT NOT NULL DEFAULT '',
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
);

-- One row a piece of work: a run, an evaluation or a data preparation. The states are
-- `domain::run::RunState`; `lease_token`, `lease_attempt` and `lease_worker_id` are set exactly in
-- the state `leased`.
CREATE TABLE work (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('run', 'evaluation', 'preparation')),
    state TEXT NOT NULL CHECK (state IN
        ('waiting', 'queued', 'leased', 'backoff', 'succeeded', 'failed', 'cancelled', 'diverged')),
    lease_token INTEGER UNIQUE,
    lease_attempt INTEGER,
    lease_worker_id TEXT,
    backoff_until_ms INTEGER,
    failed_end TEXT,
    depends_on TEXT REFERENCES work (id),
    priority INTEGER NOT NULL,
    cost_flops REAL NOT NULL,
    n_attempts INTEGER NOT NULL DEFAULT 0,
    n_failures INTEGER NOT NULL DEFAULT 0,
    n_losses INTEGER NOT NULL DEFAULT 0,
    max_failures INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    CHECK ((state = 'leased') = (lease_token IS NOT NULL)),
    CHECK ((state = 'leased') = (lease_attempt IS NOT NULL)),
    CHECK ((state = 'leased') = (lease_worker_id IS NOT NULL)),
    CHECK ((state = 'backoff') = (backoff_until_ms IS NOT NULL)),
    CHECK ((state = 'failed') = (failed_end IS NOT NULL))
);

CREATE INDEX work_by_state ON work (state, priority DESC, cost_flops DESC);
CREATE INDEX work_by_dependency ON work (depends_on) WHERE depends_on IS NOT NULL;

CREATE TABLE sources (
    hash TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    n_bytes INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
);

CREATE TABLE preparations (
    id TEXT PRIMARY KEY REFERENCES work (id),
    hash TEXT NOT NULL UNIQUE,
    config_json TEXT NOT NULL,
    manifest_key TEXT,
    manifest_hash TEXT,
    manifest_bytes INTEGER,
    n_training_tokens INTEGER,
    n_validation_tokens INTEGER,
    vocab_size INTEGER
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY REFERENCES work (id),
    identity_hash TEXT NOT NULL UNIQUE,
    config_json TEXT NOT NULL,
    recipe TEXT NOT NULL,
    preparation_id TEXT NOT NULL REFERENCES preparations (id),
    steps INTEGER NOT NULL,
    batch_tokens INTEGER NOT NULL,
    parameters_non_embedding INTEGER NOT NULL,
    parameters_total INTEGER NOT NULL,
    flops_exact REAL NOT NULL,
    flops_published REAL NOT NULL,
    micro_batch_sequences INTEGER NOT NULL,
    rolling_checkpoint_seconds INTEGER NOT NULL,
    data_point_steps_json TEXT NOT NULL,
    numerics_json TEXT,
    has_changed_numerics INTEGER NOT NULL DEFAULT 0 CHECK (has_changed_numerics IN (0, 1)),
    latest_step INTEGER NOT NULL DEFAULT 0,
    latest_values_json TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE cells (
    study_id TEXT NOT NULL REFERENCES studies (id),
    stage TEXT NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs (id),
    axis_values_json TEXT NOT NULL,
    budget_flops REAL,
    -- What this study asked for; `runs` has the steps of every study with the run.
    data_point_steps_json TEXT NOT NULL,
    PRIMARY KEY (study_id, stage, name)
);

CREATE INDEX cells_by_run ON cells (run_id);

CREATE TABLE dropped_cells (
    study_id TEXT NOT NULL REFERENCES studies (id),
    stage TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (study_id, stage, name)
);

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hostname TEXT NOT NULL,
    pid INTEGER NOT NULL,
    n_slots INTEGER NOT NULL,
    device_kind TEXT NOT NULL,
    device_name TEXT NOT NULL,
    threads_per_slot INTEGER NOT NULL,
    cpu_capability TEXT NOT NULL,
    libtorch_version TEXT NOT NULL,
    memory_bytes INTEGER NOT NULL,
    recipes_json TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('joining', 'active', 'draining', 'gone', 'lost')),
    registered_at_ms INTEGER NOT NULL,
    last_seen_at_ms INTEGER NOT NULL
);

CREATE TABLE attempts (
    work_id TEXT NOT NULL REFERENCES work (id),
    attempt INTEGER NOT NULL,
    lease_token INTEGER NOT NULL UNIQUE,
    worker_id TEXT NOT NULL REFERENCES workers (id),
    state TEXT NOT NULL CHECK (state IN ('granted', 'running', 'ended')),
    ended_as TEXT CHECK (ended_as IN ('succeeded', 'cancelled', 'preempted', 'worker_lost',
        'out_of_memory', 'diverged', 'bad_data', 'bad_checkpoint', 'bug')),
    message TEXT NOT NULL DEFAULT '',
    resumed_from_step INTEGER,
    numerics_json TEXT,
    granted_at_ms INTEGER NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms INTEGER,
    PRIMARY KEY (work_id, attempt),
    CHECK ((state = 'ended') = (ended_as IS NOT NULL))
);

CREATE TABLE checkpoints (
    run_id TEXT NOT NULL REFERENCES runs (id),
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    manifest_key TEXT NOT NULL,
    manifest_hash TEXT NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    weights_key TEXT NOT NULL,
    weights_hash TEXT NOT NULL,
    weights_bytes INTEGER NOT NULL,
    n_bytes INTEGER NOT NULL,
    is_data_point INTEGER NOT NULL CHECK (is_data_point IN (0, 1)),
    refused_reason TEXT,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, attempt, step)
);

CREATE TABLE evaluations (
    id TEXT PRIMARY KEY REFERENCES work (id),
    run_id TEXT NOT NULL REFERENCES runs (id),
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    task TEXT NOT NULL,
    config_json TEXT NOT NULL,
    result_name TEXT,
    value REAL,
    standard_error REAL,
    n_tokens INTEGER
);

CREATE INDEX evaluations_by_run ON evaluations (run_id, step);

-- Series keyed (run, attempt, name, step). The current truth of a step is the latest attempt's.
CREATE TABLE points (
    run_id TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    value REAL,
    PRIMARY KEY (run_id, name, step, attempt)
) WITHOUT ROWID;

CREATE TABLE log_lines (
    id INTEGER PRIMARY KEY,
    work_id TEXT NOT NULL REFERENCES work (id),
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    text TEXT NOT NULL,
    UNIQUE (work_id, attempt, at_ms, text)
);

-- Append-only: what happened, in the past tense.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail_json TEXT NOT NULL
);

CREATE INDEX events_by_subject ON events (subject, id);

CREATE TABLE fits (
    id TEXT PRIMARY KEY,
    study_id TEXT NOT NULL REFERENCES studies (id),
    inputs_hash TEXT NOT NULL,
    report_json TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (study_id, inputs_hash)
);
