# Every command of the project; `make help` lists those that this checkout has.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON ?= $(shell tools/find-python)
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
LOCKS  := requirements/dev.lock requirements/uv.lock
# Twice the cores of a small machine: the tests wait for half of their time.
WORKERS ?= 4
# What mypy reads: of these, what exists.
TYPED  := $(wildcard src tools examples/lab benchmarks) $(if $(wildcard grafana/*.py),grafana)
HELP   :=

HELP += 'env' 'make or update .venv with everything (another Python: make env PYTHON=python3.13)'
.PHONY: env
env: $(STAMP)
	@:

$(STAMP): pyproject.toml $(LOCKS) tools/environment.py
	@if [ -x $(PY) ]; then python=$(PY); else python="$(PYTHON)"; fi; \
	 [ -n "$$python" ] && "$$python" tools/environment.py
	@touch $@

$(LOCKS):
	@if [ -x $(PY) ]; then python=$(PY); else python="$(PYTHON)"; fi; "$$python" tools/environment.py --lock

HELP += 'test' 'unit, contract, integration and pipeline tests (ARGS="-k word" narrows)'
.PHONY: test
test: env
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(ARGS)

HELP += 'trust' 'the tests of docs/reliability.md, each as often as it takes to be sure (some hours)'
.PHONY: trust
trust: env
	@WHOLE=1 $(PY) -m pytest -q -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --timeout=3600 -m reliability $(ARGS)

HELP += 'check' 'lint, format, types, import rules, generated files, links and names in the docs, spelling'
.PHONY: check
check: env
	@$(PY) tools/check.py $(TYPED)

HELP += 'format' 'format and mend what ruff can mend'
.PHONY: format
format: env
	@$(PY) -m ruff check --fix-only --quiet . ; $(PY) -m ruff format --quiet .

HELP += 'generate' 'write the generated files anew (docs/metrics.md and others)'
.PHONY: generate
generate: env
	@$(PY) tools/generate.py

HELP += 'coverage' 'branch coverage of core and detectors by the unit tests'
.PHONY: coverage
coverage: env
	@$(PY) -m pytest -q -n $(WORKERS) tests/unit --cov --cov-report=term-missing $(ARGS)

HELP += 'matrix' 'unit and contract tests on every Python here and the oldest and newest libraries (ARGS=--quick: its two ends)'
.PHONY: matrix
matrix: env
	@$(PY) tools/matrix.py $(ARGS)

HELP += 'late' 'unit and contract tests with threads late on purpose (ARGS="--way wakes": one way)'
.PHONY: late
late: env
	@$(PY) tools/late.py $(ARGS)

HELP += 'flaky' 'a part of the tests N times on a busy machine, and what failed how often (ARGS="--times 20 -- tests/unit")'
.PHONY: flaky
flaky: env
	@$(PY) tools/flaky.py $(ARGS)

HELP += 'fuzz' 'statements, DSNs and files of telemetry under atheris, 3 minutes each (ARGS="--minutes 60 fingerprint")'
.PHONY: fuzz
fuzz: env
	@$(PY) tools/fuzz.py $(ARGS)

HELP += 'mutants' 'the share of small defects in core and detectors that the unit tests find (ARGS="--number 600 --only sql")'
.PHONY: mutants
mutants: env
	@$(PY) -m tests.mutation.run $(ARGS)

HELP += 'nightly' 'all of what CI runs in part, and when it last passed (hours)'
.PHONY: nightly
nightly: env
	@$(PY) tools/nightly.py

ifneq ($(wildcard examples/demo.py),)
HELP += 'demo' 'the shop under load on a real PostgreSQL, and what poolscope saw (DEMO_SECONDS, DEMO_DSN)'
.PHONY: demo
demo: env
	@$(PY) -m examples.demo $(ARGS)
endif

ifneq ($(wildcard benchmarks/run.py),)
HELP += 'bench' 'what a checkout costs: bare, with poolscope, with the upstream instrumentation'
.PHONY: bench
bench: env
	@$(PY) benchmarks/run.py $(ARGS)
endif

ifneq ($(wildcard benchmarks/diagnosis/run.py),)
HELP += 'diagnose' 'how often the cause is right: the confusion matrix over services with planted causes (ARGS="--runs 60 --seed x")'
.PHONY: diagnose
diagnose: env
	@$(PY) -m benchmarks.diagnosis.run $(ARGS)
endif

ifneq ($(wildcard tests/transparency/run.py),)
HELP += 'transparency' 'the own tests of the pool libraries, with and without the hooks'
.PHONY: transparency
transparency: env
	@$(PY) tests/transparency/run.py $(ARGS)
endif

HELP += 'soak' 'all pools at full speed while everything goes wrong, and whether every law holds (ARGS="--minutes 5 --seed x")'
.PHONY: soak
soak: env
	@$(PY) -m tests.soak.run $(ARGS)

ifneq ($(wildcard tools/pipeline_build.py),)
HELP += 'pipeline-build' 'build the Collector and Prometheus once, into ~/.cache/poolscope (needs Go; cold: 15 minutes)'
.PHONY: pipeline-build
pipeline-build: env
	@$(PY) tools/pipeline_build.py $(ARGS)
endif

HELP += 'images' 'pin the images of docker-compose.yml by the digests of now (ARGS=--check compares; needs docker)'
.PHONY: images
images: env
	@$(PY) tools/images.py $(ARGS)

ifneq ($(wildcard tools/stack.py),)
HELP += 'stack' 'Collector, Prometheus and Alertmanager on this machine, with the demo sending into them'
.PHONY: stack
stack: env
	@$(PY) tools/stack.py $(ARGS)
endif

ifneq ($(wildcard grafana/pictures/Makefile),)
HELP += 'pictures' 'pictures of the dashboards'
.PHONY: pictures
pictures: env
	@$(MAKE) --no-print-directory -C grafana/pictures
endif

HELP += 'lock' 'resolve the dependencies anew into requirements/*.lock (ARGS=--upgrade: the newest)'
.PHONY: lock
lock:
	@if [ -x $(PY) ]; then python=$(PY); else python="$(PYTHON)"; fi; "$$python" tools/environment.py --lock $(ARGS)
	@touch $(STAMP)

HELP += 'clean' 'remove .venv, caches and what was built'
.PHONY: clean
clean:
	@rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find src tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:
	@printf '  make %-15s %s\n' $(HELP)
