# Every target sets up what it needs. `make help` lists them.
# The distribution's own Python comes first: it is built with optimisations that many others lack.
PYTHON ?= $(shell for p in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys, venv, ensurepip; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
BACKENDS ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup compiled run test lint bench bench-overhead bench-routing bench-scaling bench-forecast bench-gpu test-runtimes test-kubernetes test-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Tidegate needs Python 3.11 or newer with venv, and none was found: install it (Debian: python3-venv), or say make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (once, about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

setup: $(STAMP) ## make .venv with everything the project needs

compiled: $(STAMP) ## compile the request path now (needs a C compiler, two minutes); TIDEGATE_COMPILED=0 does without
	@$(BIN)/python -m autoscaler.compiled

run: $(STAMP) ## simulated replicas, scaled ahead of some traffic; BACKENDS="http://host:port ..." for your own
	@$(BIN)/python -m autoscaler.compiled --background
	@$(BIN)/tidegate demo $(foreach b,$(BACKENDS),--backend $(b)) $(ARGS)

test: $(STAMP) ## all tests that need nothing but Python
	@$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(STAMP) ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: bench-gpu bench-overhead bench-routing ## every benchmark, about two hours; see tests/bench/README.md

bench-overhead: compiled ## CPU per request against nginx, HAProxy and two LLM routers
	@$(BIN)/python -m tests.bench.overhead $(ARGS)

bench-routing: compiled ## latency in six scenarios against the same peers and a clairvoyant router
	@$(BIN)/python -m tests.bench.routing $(ARGS)

bench-scaling: $(STAMP) ## GPU-hours at equal misses against the usual autoscalers (ARGS="--quick" for a look)
	@$(BIN)/python tests/bench/scaling $(ARGS)

bench-forecast: $(STAMP) ## losses of forecasts against naive ones, and their CPU (SERIES=dir for your own series)
	@$(BIN)/python tests/bench/forecast $(if $(SERIES),--series $(SERIES)) $(ARGS)

bench-gpu: $(STAMP) ## cost of reading GPUs
	@$(BIN)/python tests/bench/nvml/gpu_sampling.py

test-runtimes: $(STAMP) ## real vLLM, llama.cpp, Ollama, Triton, MLServer behind the balancer; builds them once (an hour)
	@$(BIN)/python tests/runtimes/build.py; built=$$?; TIDEGATE_RUNTIMES=1 $(BIN)/python -m pytest tests/runtimes -n0 $(ARGS); tested=$$?; exit $$((built | tested))

test-kubernetes: $(STAMP) ## a real Kubernetes control plane (needs Go; builds it once, twelve minutes)
	@$(BIN)/python tests/kubernetes/build.py
	@TIDEGATE_KUBERNETES=1 $(BIN)/python -m pytest tests/kubernetes -n0 $(ARGS)

test-gpu: $(STAMP) ## the GPU tests against this machine's own driver
	@TIDEGATE_TEST_GPU=1 $(BIN)/python -m pytest tests/nvml/real tests/nvml/test_driver_contract.py -n0 -s
	@$(BIN)/python tests/bench/nvml/gpu_sampling.py

clean: ## remove what the targets made
	@rm -rf $(VENV) .cache/compiled build *.egg-info
