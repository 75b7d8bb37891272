# Every target sets up what it needs. `make help` lists them.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
BACKENDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Tidegate needs Python 3.11 or newer, and none was found: install it, or say make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

setup: $(STAMP) ## make .venv with everything the project needs

run: $(STAMP) ## three simulated replicas, the balancer and some traffic; BACKENDS="http://host:port ..." for your own
	@$(BIN)/tidegate demo $(foreach b,$(BACKENDS),--backend $(b))

test: $(STAMP) ## all tests that need nothing but Python
	@$(BIN)/python -m pytest -n auto

lint: $(STAMP) ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean: ## remove what the targets made
	@rm -rf $(VENV) build *.egg-info
