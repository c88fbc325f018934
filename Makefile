# Run as root on Debian. Every target installs what it needs and says what.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help
help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -m ensurepip --version >/dev/null 2>&1 || { \
	  echo "installing python3-venv: this Python cannot make a virtual environment"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "installing the project and its tools into .venv"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: venv
venv: .venv/.installed ## The virtual environment with everything installed editable

.PHONY: lint
lint: venv ## ruff, mypy, the architecture's contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy crds/ipmp_api common/ipmp_service node-agent/ipmp_agent operator/ipmp_operator operator/kubectl_ipmp helm/board tests benchmarks
	$(BIN)/lint-imports --no-cache

# What the agent itself needs, so that a first look does not wait for what tests need.
.venv/.agent: pyproject.toml | $(BIN)/python
	@[ .venv/.installed -nt pyproject.toml ] || { echo "installing the agent into .venv"; \
	  $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[agent]'; }
	@touch $@

.PHONY: demo
demo: .venv/.agent ## A failover to watch: pulled cable, silent failure, repair; no cluster needed
	@$(BIN)/python -m tests.prerequisites demo
	@$(BIN)/python -m tests.lab.demo

.PHONY: test-rest
test-rest: venv ## 20 s of rest beside routing daemons: no message about a route
	IPMP_REST=20 $(BIN)/python -m pytest -q tests/lab/test_routing_daemons.py -k in_peace

.PHONY: test
test: test-unit test-lab test-cluster ## Everything: unit, kernel, real Kubernetes (the first time also builds one: 8 minutes)

.PHONY: test-unit
test-unit: venv ## The pure cores, in virtual time
	$(PYTEST) -n auto tests/unit

.PHONY: test-pythons
test-pythons: venv ## The unit tests under newer Pythons, from the suites of Debian that have them
	@$(BIN)/python -m tests.prerequisites pythons
	@$(BIN)/python -m tests.pythons

.PHONY: test-lab
test-lab: venv ## The agent on real interfaces, in network namespaces
	@$(BIN)/python -m tests.prerequisites lab
	@$(BIN)/python -m tests.lab.machine
	$(PYTEST) -v -n 2 tests/lab

.PHONY: test-drivers
test-drivers: venv ## The agent on drivers of real NICs, in a guest of QEMU
	@$(BIN)/python -m tests.prerequisites drivers
	$(PYTEST) -v -s tests/drivers

.PHONY: test-cluster
test-cluster: venv ## The product on a real Kubernetes with real nodes
	@$(BIN)/python -m tests.prerequisites lab cluster
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.cluster image
	$(PYTEST) -v tests/cluster

MINUTES ?= 10
FUZZ_SEED ?= 1

.PHONY: fuzz
fuzz: venv ## Every parser under a coverage-guided fuzzer for MINUTES=10 altogether; FUZZ_SEED=1
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(FUZZ_SEED)

HOURS ?= 0
SEED ?= 1
CHAOS = --minutes $(MINUTES) --hours $(HOURS) --seed $(SEED) $(if $(OLD),--old $(OLD))

.PHONY: chaos
chaos: venv ## Random faults against agents on real interfaces for HOURS=n MINUTES=n; SEED=1, OLD=tree of another release
	@$(BIN)/python -m tests.prerequisites lab
	@$(BIN)/python -m tests.chaos $(CHAOS) $(OPTIONS)

.PHONY: chaos-cluster
chaos-cluster: venv ## Random faults of a real Kubernetes around the product for HOURS=n MINUTES=n; SEED=1
	@$(BIN)/python -m tests.prerequisites lab cluster
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.chaos.cluster --minutes $(MINUTES) --hours $(HOURS) --seed $(SEED) $(OPTIONS)

.PHONY: soak
soak: venv ## Two agents for MINUTES=n at 2 % loss, with a link that flaps, starved and stopped; SEED=1
	@$(BIN)/python -m tests.prerequisites lab
	@$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) --seed $(SEED)

.PHONY: load
load: venv ## Failover under floods, full tables and slow clients, beside a quiet run
	@$(BIN)/python -m tests.prerequisites lab
	@$(BIN)/python -m tests.chaos.load

NODES ?= 500

.PHONY: scale
scale: venv ## NODES=500 played nodes before a real API server; SCENES=a,b OPTIONS='--beside COMMIT'
	@$(BIN)/python -m tests.prerequisites lab cluster
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.scale --nodes $(NODES) $(if $(SCENES),--scenes $(SCENES)) $(OPTIONS)

STEPS ?= 500000

.PHONY: chaos-virtual
chaos-virtual: venv ## STEPS=500000 of random histories of the core, and as many of the operator's plan; SEED=1
	@$(BIN)/python -m tests.chaos.virtual --steps $(STEPS) --seed $(SEED)

.PHONY: cluster
cluster: venv ## A real cluster left up, with the chart installed and a group applied
	@$(BIN)/python -m tests.prerequisites lab cluster
	@$(BIN)/python -m tests.cluster up

.PHONY: cluster-down
cluster-down: venv ## Remove that cluster without a trace
	@$(BIN)/python -m tests.cluster down

.PHONY: image
image: venv ## The container image, as an archive in the cache
	@$(BIN)/python -m tests.prerequisites cluster
	@$(BIN)/python -m tests.cluster image

ARCHITECTURES ?=

.PHONY: release
release: venv ## dist/: image (or more: ARCHITECTURES="amd64 arm64"), chart, plain manifests, wheel, Debian package, SBOM
	@$(BIN)/python -m tests.prerequisites cluster $(if $(ARCHITECTURES),release)
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.cluster.release dist $(if $(ARCHITECTURES),--architectures $(ARCHITECTURES))

.PHONY: release-check
release-check: venv ## Two builds from nothing hold the same packages; four minutes
	@$(BIN)/python -m tests.prerequisites cluster
	@$(BIN)/python -m tests.cluster build
	@$(BIN)/python -m tests.cluster.release --twice dist

.PHONY: deb
deb: venv ## The Debian package of the agent for hosts without a pod, in dist/
	@$(BIN)/python -m tests.cluster.debian dist

.PHONY: requirements
requirements: venv ## Resolve image-requirements.txt anew: the image's Python packages with their hashes
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[release]'
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-annotate --python-version 3.13 \
	  --extra agent --extra operator pyproject.toml --output-file image-requirements.txt

URL ?=
.PHONY: plugin
plugin: venv ## kubectl ipmp as one file, its krew manifest and completion, in dist/plugin; URL=... of its archive
	@$(BIN)/python -m kubectl_ipmp.single_file dist/plugin $(if $(URL),--url $(URL))

$(BIN)/zensical: pyproject.toml | venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[site]'
	@touch $@

.PHONY: site
site: $(BIN)/zensical ## The pages as a site in dist/site, to be served or read from the disk; a broken link fails
	@$(BIN)/python -m tests.docs.site dist/site

.PHONY: site-check
site-check: $(BIN)/zensical ## The site in Chromium at two widths, every link and anchor of it; a minute
	@$(BIN)/python -m tests.prerequisites site
	$(PYTEST) tests/docs

.PHONY: plugin-check
plugin-check: venv ## krew's own validation of the manifest, which installs the plugin for each platform; builds krew once
	@$(BIN)/python -m tests.prerequisites cluster
	@$(BIN)/python -m tests.cluster.krew

.PHONY: crds
crds: venv ## Generate crds/*.yaml and docs/api.md from ipmp_api
	$(BIN)/python -m ipmp_api.crd crds
	$(BIN)/python -m ipmp_api.reference docs/api.md

.PHONY: board
board: venv ## Generate helm/ipmp/files/board.json from helm/board
	$(BIN)/python -m helm.board

.PHONY: bench
bench: venv ## Every benchmark, each against a peer in the same run
	@$(BIN)/python -m tests.prerequisites lab bench
	@for benchmark in benchmarks/[a-z]*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done
