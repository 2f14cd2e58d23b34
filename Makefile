# Everything runs in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format types imports check constraints peers clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## .venv with the project, its recsys command and the development tools

# torch comes first and alone, from the constraints, so that nothing else pulls a larger build of it
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %s; set PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[offline,dev]'
	@touch $(STAMP)

demo: setup  ## the whole pipeline on generated data, in about two minutes
	$(BIN)/recsys demo

test: setup check  ## install, check and test: what CI runs
	$(BIN)/python -m pytest

test-slow: setup  ## the tests marked slow (minutes)
	$(BIN)/python -m pytest -m slow

check: lint types imports  ## lint, types and imports

lint: setup  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## rewrite the files as ruff formats them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup  ## mypy on the three packages
	$(BIN)/mypy

imports: setup  ## import-linter: pipelines -> recsys -> features
	$(BIN)/lint-imports

constraints: setup  ## pin what is installed now
	@echo '# Exact versions that `make setup` installs; pyproject.toml holds the lower bounds. Refresh: `make constraints`.' > constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.txt

peers: $(PEERS)/.installed  ## .venv-peers with the libraries that benchmarks/ compares with

# the same torch on both sides; named again beside the others, so that none of them moves it
$(PEERS)/.installed: $(wildcard benchmarks/peers/*.txt) constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(PEERS)/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" --requirement benchmarks/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/peers/without-dependencies.txt
	@touch $@

clean:  ## remove the environments and caches, keep data
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
