# Run as root on Debian. `make demo` and `make test` install what they need and say what.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.PHONY: venv
venv: $(VENV)/.installed ## The virtual environment with everything installed editable

.PHONY: lint
lint: venv ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy crds/ipmp_api node-agent/ipmp_agent operator/ipmp_operator
	$(BIN)/lint-imports

.PHONY: crds
crds: venv ## Generate crds/*.yaml from ipmp_api
	$(BIN)/python -m ipmp_api.crd crds
