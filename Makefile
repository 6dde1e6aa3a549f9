# Everything runs from one virtual environment, .venv, which is made again only when pyproject.toml or constraints.txt changed.
#
#   make search     run the shipped search; SPACE=file and ARGS="--trials 40 ..." change it
#   make test       lint, type-check and test
#   make install    make .venv alone
#   make PYTHON=python3.12 ...   choose the interpreter of a new .venv

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
SPACE ?= stal_loss.yaml
ARGS ?=
PYTEST_ARGS ?=

# The interpreter a user calls python3 comes first, so that a machine set up for one version keeps it.
SUITABLE = $(shell $(1) -c 'import sys; print("$(1)" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "")' 2>/dev/null)
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(call SUITABLE,$(name))))

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

# The two stamps share the environment: the dev install contains the user's, so it renews both.
define make-venv
@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
endef

$(VENV)/installed: $(PINS)
	$(make-venv)
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(PINS)
	$(make-venv)
	$(PIP_INSTALL) --editable '.[dev]'
	touch $(VENV)/installed $@

.PHONY: install
install: $(VENV)/installed

.PHONY: search
search: $(VENV)/installed
	$(BIN)/spikebench-search --space $(SPACE) $(ARGS)

.PHONY: lint
lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict

# Two workers, a file each at a time: many tests wait for processes they have started.
.PHONY: test
test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

# Pins everything that pip resolves today, keeping the comments; run it with Python 3.11.
.PHONY: constraints
constraints:
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/python -m pip install --quiet --editable '.[ray,wandb,gpu,dev]' torch==2.13.0
	{ grep '^#' constraints.txt; build/pins/bin/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' \
	  | grep -viE '^(pip=|nvidia-[a-ln-z]|cuda-|triton=)'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

# Never touches runs/ and data/: they hold a user's results.
.PHONY: clean
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
