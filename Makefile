# Everything there is to do here; `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv links check test newest reach experiments results bench sbx \
  requirements clean

PYTHON ?=
FOLDERS := agents configs envs experiments launchers replay workers
SOURCES := $(wildcard $(FOLDERS) benchmarks tests)
EXPERIMENTS := reach reach_async reach_fused pendulum pusher figure4 figure5 \
  gps_reach gps_faults gps_peg gps_schedule grasp_state grasp_protocols \
  grasp_studies grasp_logs grasp_offline
# Three, on two cores: some wait for processes. A file's tests share what they compile.
PARALLEL := --numprocesses=3 --dist=loadfile
BIN := .venv/bin
STAMP := .venv/.installed
SBX := .venv-sbx/.installed

# Each Python has its own newest JAX: make newest NEWEST=3.12
NEWEST ?= 3.11
NEWEST_VENV := .venv-newest/$(NEWEST)

# Finds CPython $(1) with venv, makes the environment $(2) and installs $< there. What
# is never imported is not compiled, which halves the time.
USABLE = import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] != "$(1)")
NO_PYTHON = armfarm needs CPython $(1) with venv: \
  apt-get install python$(1) python$(1)-venv (or: make PYTHON=/path/to/python$(1))
define install
@for python in $(PYTHON) python$(1) python3 none; do \
  $$python -c '$(call USABLE,$(1))' 2>/dev/null && break; done || true; \
if [ $$python = none ]; then echo '$(call NO_PYTHON,$(1))' >&2; exit 1; fi; \
echo "Installing $$(grep -c == $<) pinned packages into $(2), a minute or two"; \
$$python -m venv $(2)
@$(2)/bin/pip install -qq --no-deps --no-compile -r $<
@$(2)/bin/pip install -qq --no-deps --no-build-isolation -e .
@touch $@
endef

help:  ## List the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(STAMP): requirements/py311.txt setup.py
	$(call install,3.11,.venv)

$(NEWEST_VENV)/.installed: requirements/newest-py$(subst .,,$(NEWEST)).txt setup.py
	$(call install,$(NEWEST),$(NEWEST_VENV))

venv: $(STAMP)  ## Make the environment, .venv, with every package pinned

links:  ## Link the folders under their import names, for mypy and editors
	@mkdir -p .links/armfarm
	@for folder in $(FOLDERS); do ln -sfn ../../$$folder .links/armfarm/$$folder; done

check: $(STAMP) links  ## Check without running: syntax, lint, format, types
	@$(BIN)/python -m compileall -q $(SOURCES)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/mypy benchmarks/*.py

test: check  ## Run the checks and all tests, with coverage
	@$(BIN)/pytest $(PARALLEL) --cov --cov-report=term

newest: $(NEWEST_VENV)/.installed  ## Run the tests on the newest JAX, no Reverb
	@$(NEWEST_VENV)/bin/pytest $(PARALLEL)

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
	cd requirements && for minor in 11 12; do uv pip compile --quiet \
	  --python-version 3.$$minor --no-emit-index-url newest.in \
	  -o newest-py3$$minor.txt || exit; done
	cd requirements && uv pip compile --quiet --python-version 3.11 \
	  --no-emit-index-url sbx.in -o sbx.txt

clean:  ## Remove what was built and cached; .venv and runs stay
	@rm -rf .links build dist *.egg-info .coverage* htmlcov MUJOCO_LOG.TXT
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
