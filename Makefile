# Two commands for a fresh machine: `make quickstart` runs the main job, `make test` the tests.
# Each sets up what it needs in .venv, with the Python 3.11 or newer that PYTHON names.

PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

# Real processes, killed and stopped: beside the others they would take too long.
PROCESSES := tests/acceptance tests/chaos

.PHONY: help quickstart test chaos lint types contracts check clean

help:
	@echo "make quickstart   the whole way once: data, study, worker, winner, figure (about 2 minutes)"
	@echo "make test         all tests, against a real PostgreSQL"
	@echo "make chaos        the long run of kills, restarts and zombies; prints what it did (10 minutes)"
	@echo "make check        what continuous integration runs: lint, types, import contracts, tests"
	@echo "make clean        stop the database and remove .venv; storage/ is left alone"

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cubeopt needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { \
	  echo "cannot make .venv: install your system's venv package (Debian: apt install python3-venv)"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: .venv/installed
	@bash studies/quickstart.sh $(BIN)/cubeopt

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile $(PROCESSES:%=--ignore %)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PROCESSES)

chaos: .venv/installed-dev
	$(BIN)/python -m pytest $(PROCESSES) -m long -s

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

contracts: .venv/installed-dev
	$(BIN)/lint-imports

check: lint types contracts test

clean:
	-$(BIN)/cubeopt db stop
	rm -rf .venv
