# `make run` and `make test` set themselves up: all they need is python3 (>= 3.11) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
# What is said of rounding and of NaN is said of programs as users compile them; all other tests
# compile without optimisation, in a sixth of the time.
NUMBERS := tests/min_norm/test_accuracy.py tests/test_box_qp.py tests/test_portable.py \
  tests/weighting/test_bad_numbers.py
QUICK := --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10

.DEFAULT_GOAL := help

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mgda_jax needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[run,test,notebooks,docs]'
	@touch $@

.PHONY: help
help:  ## show these lines
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

.PHONY: install
install: $(STAMP)  ## create .venv with everything in it

.PHONY: run
run: $(STAMP)  ## train the main job: MultiMNIST on real digits; ARGS='--help' shows its flags
	@$(BIN)/python -m experiments.multimnist $(ARGS)

.PHONY: test
test: lint types  ## lint, types, tests with coverage, doctests, README snippets
	XLA_FLAGS="$(XLA_FLAGS) $(QUICK)" $(PYTEST) --cov --cov-report= --cov-fail-under=0 \
	  $(addprefix --ignore=,$(NUMBERS))
	$(PYTEST) --cov --cov-append --cov-report=term $(NUMBERS)

.PHONY: docs
docs: $(STAMP)  ## the site, built strictly and without network into .cache/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

.PHONY: notebooks
notebooks: $(STAMP)  ## execute the notebooks and store their outputs
	$(BIN)/python -m notebooks.run $(ARGS)

.PHONY: matrix
matrix:  ## part of the tests on the oldest and newest jax, on every Python at hand
	$(PYTHON) -m tests.matrix

.PHONY: portable
portable: $(STAMP)  ## the numerical bounds under other instruction sets, BLAS kernels and roundings
	$(BIN)/python -m benchmarks.portable --workers $(WORKERS)

.PHONY: lint
lint: $(STAMP)  ## ruff check and ruff format --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(STAMP)  ## pyright
	$(BIN)/pyright

.PHONY: format
format: $(STAMP)  ## let ruff sort imports and format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: clean
clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .cache .coverage .pytest_cache .ruff_cache
