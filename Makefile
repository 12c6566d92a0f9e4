# `make test` and `make search` work on a fresh clone: they make .venv first. Everything else here is a short name for one command.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BUDGET  ?= 60s

BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

# One thread a process: the tests run in $(WORKERS) processes, and threads that fight for cores make every one of them slower.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install test lint types unit search bench format clean

help:
	@echo 'make test     lint, types and tests             make search   a search on the digits, $(BUDGET)'
	@echo 'make lint     ruff and the import contracts     make types    mypy'
	@echo 'make unit     the tests alone                   make bench    benchmarks/graph.py'
	@echo 'make format   ruff format and fixes             make clean    remove .venv and caches'
	@echo 'make unit ARGS="tests/ir -x" passes ARGS to pytest; WORKERS=0 runs it in one process.'

# torch goes first and pinned, so that nothing that follows resolves it anew.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

install: $(STAMP)

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

search: $(STAMP)
	$(BIN)/archwright search digits --budget $(BUDGET)

bench: $(STAMP)
	$(BIN)/python benchmarks/graph.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
