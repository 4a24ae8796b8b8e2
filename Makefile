# Everything there is to do here; `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv links check test reach experiments results bench sbx requirements clean

PYTHON ?= python3.11
FOLDERS := agents configs envs experiments launchers replay workers
SOURCES := $(wildcard $(FOLDERS) benchmarks tests)
EXPERIMENTS := reach reach_async pendulum
BIN := .venv/bin
STAMP := .venv/.installed
SBX := .venv-sbx/.installed

USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))
NO_PYTHON := armfarm needs CPython 3.11 with venv: \
  apt-get install python3.11 python3.11-venv (or: make PYTHON=/path/to/python3.11)

help:  ## List the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(STAMP): requirements/py311.txt setup.py
	@for python in $(PYTHON) python3 none; do \
	  $$python -c '$(USABLE)' 2>/dev/null && break; done || true; \
	if [ $$python = none ]; then echo '$(NO_PYTHON)' >&2; exit 1; fi; \
	echo "Installing $$(grep -c == $<) pinned packages into .venv, a minute or two"; \
	$$python -m venv .venv
	@$(BIN)/pip install -qq --no-deps -r $<
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

venv: $(STAMP)  ## Make the environment, .venv, with every package pinned

links:  ## Link the folders under their import names, for mypy and editors
	@mkdir -p .links/armfarm
	@for folder in $(FOLDERS); do ln -sfn ../../$$folder .links/armfarm/$$folder; done

check: $(STAMP) links  ## Check without running: syntax, lint, format, types
	@$(BIN)/python -m compileall -q $(SOURCES)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

test: check  ## Run the checks and all tests, with coverage
	@$(BIN)/pytest --cov --cov-report=term

reach: $(STAMP)  ## Teach an arm to reach, in lock step, on this machine
	$(BIN)/python -m armfarm.launchers.local --config=configs/naf.py:reach \
	  --runtime=sync --workdir=runs/reach

experiments: $(STAMP)  ## Run every experiment; what is finished is not run again
	@for name in $(EXPERIMENTS); do \
	  $(BIN)/python -m armfarm.experiments.$$name || exit; done

results: $(STAMP)  ## Redraw tables and figures from the recorded numbers
	$(BIN)/python -m armfarm.experiments.results

$(SBX): requirements/sbx.txt setup.py | $(STAMP)
	@echo "Installing $$(grep -c == $<) pinned packages into .venv-sbx, some minutes"
	@$(BIN)/python -m venv .venv-sbx
	@.venv-sbx/bin/pip install -qq --no-deps -r $<
	@.venv-sbx/bin/pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

sbx: $(SBX)  ## Let an agent of SBX learn armfarm/Reach-v0, in its own environment
	@.venv-sbx/bin/python benchmarks/_sbx_reach.py

bench: $(STAMP)  ## Run the benchmarks
	@for script in benchmarks/[!_]*.py; do $(BIN)/python $$script; done

requirements:  ## Resolve requirements/*.in again, with uv
	cd requirements && uv pip compile --quiet --python-version 3.11 \
	  --override overrides.in --no-emit-index-url base.in -o py311.txt
	cd requirements && uv pip compile --quiet --python-version 3.11 \
	  --no-emit-index-url sbx.in -o sbx.txt

clean:  ## Remove what was built and cached; .venv and runs stay
	@rm -rf .links build dist *.egg-info .coverage* htmlcov MUJOCO_LOG.TXT
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
