# Names for what is done often. Whatever needs an `if` is Python, in scripts/.

# In CI cargo builds into the cache folder, so that a fresh clone does not build torch-sys again.
# Cargo itself knows what is stale. Tests find programs by CARGO_BIN_EXE_… or beside their own
# executable's folder, never by the path `target/release`, which `make build` fills for people.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gradus/target
endif

PYTHON ?= python3
# One profile and one selection of packages everywhere, so that everything compiles once.
CARGO_FLAGS := --release --locked --workspace
WEB := npm --prefix dashboards/web

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo web build demo test test-slow check fmt doc programs sim soak
.PHONY: bench-train bench-ops bench-checkpoint bench-orchestration bench-dispatch bench-scale bench-metrics
.PHONY: bench-fit bench-fit-answers bench-recovery

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

setup: ## Fetch libtorch, the demo text, npm packages and test tools; again: seconds, no network.
	@$(PYTHON) scripts/setup.py

setup-demo:
	@$(PYTHON) scripts/setup.py --without-tests

# The dashboard is embedded in the coordinator, so it comes before cargo.
web: ## Build the dashboard into dashboards/web/dist.
	@$(WEB) run build

build: web ## Build gradus, gradus-coordinator and gradus-worker into target/release.
	@$(MAKE) --no-print-directory programs

programs:
	cargo build $(CARGO_FLAGS) --bins
	@$(PYTHON) scripts/place_binaries.py

demo: setup-demo ## Set up, build and run the demo study on real text.
	@$(MAKE) --no-print-directory build
	target/release/gradus demo

# libtorch's threads would fight over the cores with the tests beside them: one each. The tests of
# whole clusters start the three programs, which cargo builds with the tests of their packages.
test: setup ## Set up and run every test.
	@$(MAKE) --no-print-directory web
	OMP_NUM_THREADS=1 cargo nextest run $(CARGO_FLAGS)
	cargo test $(CARGO_FLAGS) --doc
	$(WEB) test

# What CI does a part of: 200 kills of each architecture's trainer, 1000 zombies, coverage of 200
# studies, every planted mistake.
test-slow: setup ## The slow variants of tests: hours; ONLY=killed_often for one test program.
	@$(MAKE) --no-print-directory web
	SLOW_TESTS=1 OMP_NUM_THREADS=1 cargo nextest run $(CARGO_FLAGS) --profile slow \
		-E '$(if $(ONLY),binary($(ONLY)),binary(killed_often) | binary(process_zombies) | binary(sim) | package(scaling))'

# The dashboard is built for its tests' sake only once: what check compiles embeds it too.
check: setup ## Format, lints, tidy rules and the dashboard's types; all warnings are errors.
	cargo fmt --all --check
	@$(MAKE) --no-print-directory web
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	cargo nextest run $(CARGO_FLAGS) -E 'package(e2e) and binary(tidy)'
	$(WEB) run check

# Each prints a table and writes target/bench/NAME.json; more options by ARGS, such as ARGS=--quick.
# PyTorch's side runs in the Python that BENCH_PYTHON names, else in an environment of its own.
bench-train: programs ## Training tokens/s, beside PyTorch: half an hour; ARGS="--only llama-7m".
	@$(PYTHON) scripts/bench_python.py
	target/release/gradus-bench train $(ARGS)

bench-ops: programs ## Linear-attention operators and step time by length: 15 minutes.
	target/release/gradus-bench ops $(ARGS)

bench-checkpoint: programs ## What a checkpoint adds to a step: 10 minutes.
	target/release/gradus-bench checkpoint $(ARGS)

bench-orchestration: programs ## A run under a worker against the bare loop: 40 minutes.
	target/release/gradus-bench orchestration $(ARGS)

bench-dispatch: programs ## Null runs through a coordinator on both databases: 5 minutes.
	target/release/gradus-bench dispatch $(ARGS)

bench-scale: programs ## A long queue and many idle workers: 5 minutes; ARGS="--queued 1000000".
	target/release/gradus-bench scale $(ARGS)

bench-recovery: programs ## A killed coordinator and killed workers, until work goes on: 10 minutes.
	target/release/gradus-bench recovery $(ARGS)

bench-metrics: ## Metric points into the store and back, on both databases: 5 minutes.
	cargo bench --locked -p coordinator --bench metrics -- --out $(CURDIR)/target/bench $(ARGS)

# Needs no libtorch; SciPy's side takes ten seconds, with --quick one.
bench-fit: ## The parametric fit and its bootstrap on one core, beside SciPy: half a minute.
	@$(PYTHON) scripts/bench_scipy.py
	cargo run --release --locked -p scaling --example bench_fit -- $(ARGS)

bench-fit-answers: ## What a kept fit takes to answer over HTTP, on one connection: a quarter of a minute.
	cargo bench --locked -p coordinator --bench fits -- --out $(CURDIR)/target/bench $(ARGS)

sim: ## Simulated clusters in storms: SEEDS=1000, or SIM_SEED=7 for one (docs/reference/simulation.md).
	SIM_SEEDS=$(or $(SEEDS),1000) cargo nextest run $(CARGO_FLAGS) --no-capture -E 'package(e2e) and binary(sim)'

soak: ## Faults at random against real processes for MINUTES=10 on each database (docs/reference/faults.md).
	SOAK_MINUTES=$(or $(MINUTES),10) cargo nextest run $(CARGO_FLAGS) --profile soak --no-capture -E 'package(e2e) and binary(process_soak)'

fmt: ## Format the Rust code.
	cargo fmt --all

doc: ## Build the API documentation into target/doc.
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps
