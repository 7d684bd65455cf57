# `make help` lists what there is. Everything is done by the programs it calls; here is only in which order.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(BIN)/python -m native
PYTEST := $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help run up down backup restore rebuild grow ingest summary health status logs clean doctor test fuzz chaos chaos-short \
	coverage check lint dashboards openapi-gen bench bench-loss bench-growth bench-peers bench-peers-prepare bench-templates \
	system-tests system-tests-quick system-tests-performance lock docker-build docker-push e2e-compose

help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-26s %s\n", $$1, $$2}'

# --- the stack -----------------------------------------------------------------------------------------------------

run: $(VENV)/runtime ## Start everything, ingest logs.json if the store is empty, show the summary; Ctrl-C stops it all
	@$(NATIVE) run

up: $(VENV)/runtime ## Start everything in the background; ingests nothing
	@$(NATIVE) up

down: $(VENV)/runtime ## Stop everything, sources first, Kafka last
	@$(NATIVE) down

backup: $(VENV)/runtime ## Save the store and the state while all is running, into BACKUP=folder
	@$(NATIVE) backup $(BACKUP)

restore: $(VENV)/runtime ## Start with the backup BACKUP=folder; the stack is down, its store empty
	@$(NATIVE) restore $(BACKUP)

rebuild: $(VENV)/runtime ## Build the store anew from the topics; CONFIRM=--confirm loses what they don't hold any more
	@$(NATIVE) rebuild $(CONFIRM)

grow: $(VENV)/runtime ## Give every topic PARTITIONS=24 partitions, with all state; stops and starts the stack
	@PARTITIONS=$(PARTITIONS) $(NATIVE) grow $(PARTITIONS)

ingest: $(VENV)/runtime ## Ingest logs.json, or FILE=name, and show the receipt
	@$(NATIVE) ingest $(FILE)

summary: $(VENV)/runtime ## Show the summary of all that is stored
	@$(NATIVE) summary

health: $(VENV)/runtime ## Show the health of every part; fails unless all is healthy
	@$(NATIVE) health

status: $(VENV)/runtime ## Show which programs run
	@$(NATIVE) status

logs: $(VENV)/runtime ## Follow the logs of all programs, or of PROGRAM=name
	@$(NATIVE) logs $(PROGRAM)

doctor: $(VENV)/runtime ## Examine the machine: ports, versions, disk, memory, leftovers, each with its remedy
	@$(NATIVE) doctor

clean: $(VENV)/runtime ## Stop everything and delete all data, logs and caches; keeps the virtual environment
	@$(NATIVE) clean
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage htmlcov

# --- quality -------------------------------------------------------------------------------------------------------

test: $(VENV)/development ## Unit, property, contract and integration tests; these start a Kafka of their own
	@$(NATIVE) prepare
	$(PYTEST)

chaos-short: $(VENV)/development ## Each main fault once, on three brokers; zombies, commits in doubt, hung transactions
	@$(NATIVE) prepare
	$(PYTEST) tests/chaos

chaos: $(VENV)/development ## Faults at random on three brokers for CHAOS_SECONDS (600), exactly once after each; SLUICE_SEED repeats
	@$(NATIVE) prepare
	$(BIN)/python -m tests.chaos

coverage: $(VENV)/development ## The tests with their coverage; htmlcov/index.html shows it line by line
	@$(NATIVE) prepare
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report --skip-covered --sort=cover
	@$(BIN)/coverage html --quiet

dashboards: $(VENV)/development ## Write grafana/dashboards/*.json anew from grafana/build.py and the alert rules
	$(BIN)/python -m grafana.build

fuzz: $(VENV)/development ## Tampered chunks for FUZZ_SECONDS (60) each target; the seeds are printed, FUZZ_SEED repeats one
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) $(PYTEST) -s tests/property/test_chunking_fuzz.py

check: $(VENV)/development ## ruff, mypy strict, import-linter, the dashboards; promtool and amtool where they are installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m grafana.build --check
	$(BIN)/python -m grafana.lint
	@if command -v promtool >/dev/null; then set -ex; \
		promtool check rules prometheus/rules/*.yml; \
		printf '%s\n' prometheus/tests/*.yml | xargs -P 2 -n 1 promtool test rules; \
	else echo "promtool is not installed (Debian: prometheus): the alert rules were not checked"; fi
	@if command -v amtool >/dev/null; then set -x; amtool check-config prometheus/alertmanager.yml; \
	else echo "amtool is not installed (Debian: prometheus-alertmanager): the alerts' routes were not checked"; fi

lint: $(VENV)/development ## Mend what ruff can mend by itself, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi-gen: $(VENV)/runtime ## Write docs/openapi/*.json from the running services
	@$(NATIVE) openapi

bench: $(VENV)/development ## Measure speed and memory on this machine; takes some minutes
	@$(NATIVE) prepare
	$(BIN)/python -m benchmarks.bench

bench-loss: $(VENV)/development ## Two minutes: fails where our stage has lost a fifth of its stored share of the bare client's speed
	@$(NATIVE) prepare
	$(BIN)/python -m benchmarks.bench --loss --records 400000 --runs 3

bench-growth: $(VENV)/development ## 20 million records through one chain: cost and memory of each million; 20 GB of disk
	@$(NATIVE) prepare
	$(BIN)/python -m benchmarks.growth --json docs/growth.json --plot docs/growth.svg

bench-peers: bench-peers-prepare ## The same beside other stream processors, each in an environment of its own; half an hour
	$(BIN)/python -m benchmarks.bench --only peers --records 500000 --runs 3

bench-peers-prepare: $(VENV)/development ## Install and build the peers of bench-peers into .run/peers; 500 MB
	@$(NATIVE) prepare
	$(BIN)/python -m benchmarks.preparation

bench-templates: $(VENV)/development ## Accuracy and speed of templates on LogHub's samples, which DATA=folder holds; half a minute
	@$(BIN)/python -m benchmarks.templates $(DATA)

system-tests: $(VENV)/development ## Exercise the running stack (make up) from outside: everything
	$(PYTEST) tests/e2e

system-tests-quick: $(VENV)/development ## The same, only what takes seconds
	$(PYTEST) tests/e2e -m quick

system-tests-performance: $(VENV)/development ## The same, only what measures; prints numbers
	$(PYTEST) tests/e2e -m performance -s

# --- Docker ----------------------------------------------------------------------------------------------------------

docker-build: ## Build the images; REGISTRY=host/path and TAG=version name them
	@compose/images build

docker-push: ## Build and push them; needs REGISTRY and TAG
	@compose/images push

e2e-compose: $(VENV)/development ## Start docker-compose.yml on the engine that is there, and test it: facts, kills, copies, rights
	$(PYTEST) tests/compose -v -s

# --- the virtual environment ---------------------------------------------------------------------------------------
# Two marks, each newer than the lock that it was installed from. Development holds the runtime's packages too, in the
# same versions, so that installing one never disturbs the other.

$(VENV)/runtime: requirements.lock
	@$(call install,requirements.lock)
	@touch $@

$(VENV)/development: requirements-dev.lock
	@$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/runtime

define install
mkdir -p .run && exec 9>.run/install.lock && { ! command -v flock >/dev/null || flock 9; } && \
echo "Installing the packages of $(1) into $(VENV); this takes a minute or so." && \
{ command -v $(PYTHON) >/dev/null || { echo "Python is missing. Debian: sudo apt-get install -y python3-venv"; exit 1; }; } && \
$(PYTHON) native/prerequisites.py python && \
{ test -x $(BIN)/python && $(BIN)/python -c '' || $(PYTHON) -m venv --clear $(VENV); } && \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
endef

lock: ## Resolve the dependencies of pyproject.toml anew and pin them with their hashes
	@rm -rf .run/lock-tools && $(PYTHON) -m venv .run/lock-tools && .run/lock-tools/bin/pip install --quiet uv
	@$(LOCK) --extra processing --extra native --output-file requirements.lock pyproject.toml
	@$(LOCK) --extra processing --extra native --extra dev --constraints requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
	@$(LOCK) --constraints requirements.lock --output-file compose/services.lock pyproject.toml
	@$(LOCK) --constraints requirements.lock --extra processing $(NOT_IN_IMAGE:%=--no-emit-package %) \
		--output-file compose/processing.lock pyproject.toml
	@! grep -nE '://|^-' requirements.lock requirements-dev.lock compose/*.lock  # no place to download from may stand there

LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" .run/lock-tools/bin/uv pip compile $(LOCK_FLAGS)
LOCK_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate
# chdb's ways to give out data frames: 260 MB that no service of ours imports
NOT_IN_IMAGE := pandas pyarrow python-dateutil six tzdata
