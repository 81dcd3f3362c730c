-- The store of a coordinator: studies, the work they need, who does it, and what came out.
-- Times are milliseconds since the Unix epoch and for display and back-off only; leases live on the
-- leader's monotonic clock. Identifiers and hashes are text. Text is ordered by its bytes, as in
-- SQLite, whatever the locale of the database is.

CREATE TABLE lease_tokens (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    last_token BIGINT NOT NULL
);

INSERT INTO lease_tokens (only_row, last_token)
VALUES (1, 0);

CREATE TABLE studies (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL UNIQUE,
    spec_text TEXT COLLATE "C" NOT NULL,
    spec_file TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    fit_spec_json TEXT COLLATE "C" NOT NULL,
    evaluate_json TEXT COLLATE "C" NOT NULL,
    priority BIGINT NOT NULL,
    is_cancelled BIGINT NOT NULL DEFAULT 0 CHECK (is_cancelled IN (0, 1)),
    cancel_reason TEXT COLLATE "C" NOT NULL DEFAULT '',
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL
);

-- One row a piece of work: a run, an evaluation or a data preparation. The states are
-- `domain::run::RunState`; `lease_token`, `lease_attempt` and `lease_worker_id` are set exactly in
-- the state `leased`.
CREATE TABLE work (
    id TEXT COLLATE "C" PRIMARY KEY,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('run', 'evaluation', 'preparation')),
    state TEXT COLLATE "C" NOT NULL CHECK (state IN
        ('waiting', 'queued', 'leased', 'backoff', 'succeeded', 'failed', 'cancelled', 'diverged')),
    lease_token BIGINT UNIQUE,
    lease_attempt BIGINT,
    lease_worker_id TEXT COLLATE "C",
    backoff_until_ms BIGINT,
    failed_end TEXT COLLATE "C",
    depends_on TEXT COLLATE "C" REFERENCES work (id),
    priority BIGINT NOT NULL,
    cost_flops DOUBLE PRECISION NOT NULL,
    n_attempts BIGINT NOT NULL DEFAULT 0,
    n_failures BIGINT NOT NULL DEFAULT 0,
    n_losses BIGINT NOT NULL DEFAULT 0,
    max_failures BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    CHECK ((state = 'leased') = (lease_token IS NOT NULL)),
    CHECK ((state = 'leased') = (lease_attempt IS NOT NULL)),
    CHECK ((state = 'leased') = (lease_worker_id IS NOT NULL)),
    CHECK ((state = 'backoff') = (backoff_until_ms IS NOT NULL)),
    CHECK ((state = 'failed') = (failed_end IS NOT NULL))
);

CREATE INDEX work_by_state ON work (state, priority DESC, cost_flops DESC);
CREATE INDEX work_by_dependency ON work (depends_on) WHERE depends_on IS NOT NULL;

CREATE TABLE sources (
    hash TEXT COLLATE "C" PRIMARY KEY,
    key TEXT COLLATE "C" NOT NULL,
    n_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE preparations (
    id TEXT COLLATE "C" PRIMARY KEY REFERENCES work (id),
    hash TEXT COLLATE "C" NOT NULL UNIQUE,
    config_json TEXT COLLATE "C" NOT NULL,
    manifest_key TEXT COLLATE "C",
    manifest_hash TEXT COLLATE "C",
    manifest_bytes BIGINT,
    n_training_tokens BIGINT,
    n_validation_tokens BIGINT,
    vocab_size BIGINT
);

CREATE TABLE runs (
    id TEXT COLLATE "C" PRIMARY KEY REFERENCES work (id),
    identity_hash TEXT COLLATE "C" NOT NULL UNIQUE,
    config_json TEXT COLLATE "C" NOT NULL,
    recipe TEXT COLLATE "C" NOT NULL,
    preparation_id TEXT COLLATE "C" NOT NULL REFERENCES preparations (id),
    steps BIGINT NOT NULL,
    batch_tokens BIGINT NOT NULL,
    parameters_non_embedding BIGINT NOT NULL,
    parameters_total BIGINT NOT NULL,
    flops_exact DOUBLE PRECISION NOT NULL,
    flops_published DOUBLE PRECISION NOT NULL,
    micro_batch_sequences BIGINT NOT NULL,
    rolling_checkpoint_seconds BIGINT NOT NULL,
    data_point_steps_json TEXT COLLATE "C" NOT NULL,
    numerics_json TEXT COLLATE "C",
    has_changed_numerics BIGINT NOT NULL DEFAULT 0 CHECK (has_changed_numerics IN (0, 1)),
    latest_step BIGINT NOT NULL DEFAULT 0,
    latest_values_json TEXT COLLATE "C" NOT NULL DEFAULT '{}'
);

CREATE TABLE cells (
    study_id TEXT COLLATE "C" NOT NULL REFERENCES studies (id),
    stage TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    axis_values_json TEXT COLLATE "C" NOT NULL,
    budget_flops DOUBLE PRECISION,
    -- What this study asked for; `runs` has the steps of every study with the run.
    data_point_steps_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (study_id, stage, name)
);

CREATE INDEX cells_by_run ON cells (run_id);

CREATE TABLE dropped_cells (
    study_id TEXT COLLATE "C" NOT NULL REFERENCES studies (id),
    stage TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (study_id, stage, name)
);

CREATE TABLE workers (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    hostname TEXT COLLATE "C" NOT NULL,
    pid BIGINT NOT NULL,
    n_slots BIGINT NOT NULL,
    device_kind TEXT COLLATE "C" NOT NULL,
    device_name TEXT COLLATE "C" NOT NULL,
    threads_per_slot BIGINT NOT NULL,
    cpu_capability TEXT COLLATE "C" NOT NULL,
    libtorch_version TEXT COLLATE "C" NOT NULL,
    memory_bytes BIGINT NOT NULL,
    recipes_json TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('joining', 'active', 'draining', 'gone', 'lost')),
    registered_at_ms BIGINT NOT NULL,
    last_seen_at_ms BIGINT NOT NULL
);

CREATE TABLE attempts (
    work_id TEXT COLLATE "C" NOT NULL REFERENCES work (id),
    attempt BIGINT NOT NULL,
    lease_token BIGINT NOT NULL UNIQUE,
    worker_id TEXT COLLATE "C" NOT NULL REFERENCES workers (id),
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('granted', 'running', 'ended')),
    ended_as TEXT COLLATE "C" CHECK (ended_as IN ('succeeded', 'cancelled', 'preempted', 'worker_lost',
        'out_of_memory', 'diverged', 'bad_data', 'bad_checkpoint', 'bug')),
    message TEXT COLLATE "C" NOT NULL DEFAULT '',
    resumed_from_step BIGINT,
    numerics_json TEXT COLLATE "C",
    granted_at_ms BIGINT NOT NULL,
    started_at_ms BIGINT,
    ended_at_ms BIGINT,
    PRIMARY KEY (work_id, attempt),
    CHECK ((state = 'ended') = (ended_as IS NOT NULL))
);

CREATE TABLE checkpoints (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    attempt BIGINT NOT NULL,
    step BIGINT NOT NULL,
    manifest_key TEXT COLLATE "C" NOT NULL,
    manifest_hash TEXT COLLATE "C" NOT NULL,
    manifest_bytes BIGINT NOT NULL,
    weights_key TEXT COLLATE "C" NOT NULL,
    weights_hash TEXT COLLATE "C" NOT NULL,
    weights_bytes BIGINT NOT NULL,
    n_bytes BIGINT NOT NULL,
    is_data_point BIGINT NOT NULL CHECK (is_data_point IN (0, 1)),
    refused_reason TEXT COLLATE "C",
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (run_id, attempt, step)
);

CREATE TABLE evaluations (
    id TEXT COLLATE "C" PRIMARY KEY REFERENCES work (id),
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    attempt BIGINT NOT NULL,
    step BIGINT NOT NULL,
    task TEXT COLLATE "C" NOT NULL,
    config_json TEXT COLLATE "C" NOT NULL,
    result_name TEXT COLLATE "C",
    value DOUBLE PRECISION,
    standard_error DOUBLE PRECISION,
    n_tokens BIGINT
);

CREATE INDEX evaluations_by_run ON evaluations (run_id, step);

-- Series keyed (run, attempt, name, step). The current truth of a step is the latest attempt's.
CREATE TABLE points (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id),
    name TEXT COLLATE "C" NOT NULL,
    step BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    value DOUBLE PRECISION,
    PRIMARY KEY (run_id, name, step, attempt)
);

CREATE TABLE log_lines (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    work_id TEXT COLLATE "C" NOT NULL REFERENCES work (id),
    attempt BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    level TEXT COLLATE "C" NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    text TEXT COLLATE "C" NOT NULL
);

-- A line may be longer than an index takes, so its hash stands for it.
CREATE UNIQUE INDEX log_lines_once ON log_lines (work_id, attempt, at_ms, MD5(text));

-- Append-only: what happened, in the past tense.
CREATE TABLE events (
    id BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    detail_json TEXT COLLATE "C" NOT NULL
);

CREATE INDEX events_by_subject ON events (subject, id);

CREATE TABLE fits (
    id TEXT COLLATE "C" PRIMARY KEY,
    study_id TEXT COLLATE "C" NOT NULL REFERENCES studies (id),
    inputs_hash TEXT COLLATE "C" NOT NULL,
    report_json TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    UNIQUE (study_id, inputs_hash)
);
