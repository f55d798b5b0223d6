# make demo    watch an agent learn to survive Doom inside its own dream (about six minutes, two cores)
# make test    lint, types and the default tests (under ten minutes)
#
# Both make the virtual environment .venv and install what they need, once. See scripts/venv.sh for PYTHON= and TORCH=.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PY := $(VENV)/bin/python
RUN ?= runs/demo
PYTEST_ARGS ?=

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.installed-demo ## train and evaluate World Models on VizDoom TakeCover, write a report
	$(PY) -m oneiro.cli train vmc-takecover --size demo --run $(RUN) --report True

demo-smoke: $(VENV)/.installed-demo ## the same at a one-minute size, for continuous integration
	$(PY) -m oneiro.cli train vmc-takecover --size smoke --run runs/smoke --report True

test: lint types ## lint, types, and every test that is not marked slow
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n 2 $(PYTEST_ARGS) || $(call explain,$$?)

test-slow: $(VENV)/.installed-dev ## learning and endurance tests
	$(PY) -m pytest -m slow --timeout 3600 $(PYTEST_ARGS) || $(call explain,$$?)

lint: $(VENV)/.installed-dev ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.installed-dev ## pyright
	$(PY) -m pyright --pythonpath $(PY)

docs: $(VENV)/.installed-docs ## the documentation as a web site, in site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

clean: ## remove what these commands made, but for runs/
	rm -rf $(VENV) site .pytest_cache .ruff_cache

# pytest's exit code 5 means that nothing was collected: a broken marker or path, not a success.
explain = { code=$(1); [ $$code != 5 ] || echo "no test was collected; check -m and the paths"; exit $$code; }

$(VENV)/.installed-dev: pyproject.toml scripts/venv.sh
	scripts/venv.sh $(VENV) -e '.[dev]'
	touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: pyproject.toml scripts/venv.sh
	scripts/venv.sh $(VENV) -e '.[demo]'
	touch $@

$(VENV)/.installed-docs: pyproject.toml scripts/venv.sh
	scripts/venv.sh $(VENV) -e '.[docs]'
	touch $@

.PHONY: help demo demo-smoke test test-slow lint types docs clean
