# `make` lists the targets. Everything runs in .venv, which is made from constraints.txt when it is missing.

SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TESTS := python -m pytest --dist loadfile  # files of tests share what is slow to make
READY := $(VENV)/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
unexport PYTHONDONTWRITEBYTECODE  # as images of Docker set it: every start would compile all that it imports

# A download has no git, and DVC wants to be told so.
WITHOUT_GIT = [ -e .git ] || dvc config --local core.no_scm true

.DEFAULT_GOAL := help
.PHONY: help demo language new use presets repro tune serve test test-slow test-all lint docs ui clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | awk -F ':.*  ## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# --no-compile: Python compiles what it imports, which most of the 28,000 files never are.
$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not there; install Python 3.11, or say PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --upgrade-strategy only-if-needed -c constraints.txt -e '.[pipeline,language,dev]'
	@touch $@

demo: repro  ## run the whole pipeline on the embedded default; ends with reports/index.html
	@echo
	@cat reports/comparison.md
	@echo
	@echo "Open reports/index.html; compare the runs with: make ui"

language: $(READY)  ## compare ways to fine-tune a small language model; ends with examples/language/reports/index.html
	@$(WITHOUT_GIT)
	@python -m examples.language.settings
	@dvc repro examples/language/dvc.yaml:compare
	@echo "Open examples/language/reports/index.html"

new: $(READY)  ## write params.yaml for your own images: FOLDER=...; says why, and what it will cost (FORCE=1: replaces yours)
	@stochca new $(if $(FOLDER),"$(FOLDER)") $(if $(FORCE),--force)

use: $(READY)  ## make params.yaml a known benchmark: PRESET=NAME; says what to download and what it will cost
	@stochca use $(PRESET)

presets: $(READY)  ## list the presets
	@stochca presets

repro: $(READY)  ## run the stages up to the page that params.yaml, the code or the data have changed
	@$(WITHOUT_GIT)
	@stochca check
	@dvc repro compare

tune: $(READY)  ## search the probability of cross-attention with Ray Tune; says how long first, ends with reports/tune/
	@$(WITHOUT_GIT)
	@stochca check
	@dvc repro prepare
	@stochca cost --search
	@dvc repro tune

serve: $(READY)  ## start Prefect and MLflow here, with the flows on their schedules
	@exec python -m flows.serve

test: $(READY)  ## run the tests
	@$(TESTS) -n 2 -m "not slow"

# A line for each, for they are long; twice as many as cores, for they wait for servers; the longest, e2e, first.
# Only their files, because each process imports all that it is given.
test-slow: $(READY)  ## run the long tests, end to end
	@$(TESTS) -n 4 --no-loadscope-reorder -m slow -vv $$(grep -rl --include='*.py' mark.slow tests | sort)

test-all: $(READY)  ## run the tests, the long ones too
	@$(TESTS) -n 2

lint: $(READY)  ## check style and types
	@ruff check .
	@ruff format --check .
	@mypy

docs: $(READY)  ## build README.md and docs/ as a site; a link that leads nowhere ends it
	@sphinx-build -W --keep-going -q -c docs . site && cp site/README.html site/index.html
	@echo "Open site/index.html"

ui: $(READY)  ## open MLflow's UI on http://127.0.0.1:5000
	@case "$$MLFLOW_TRACKING_URI" in \
	http*) echo "Runs: $$MLFLOW_TRACKING_URI" ;; \
	*) echo "Runs: http://127.0.0.1:$${PORT:-5000}/#/experiments"; \
	   python -m pipeline.tracking.moved; \
	   mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" --host 127.0.0.1 --port $${PORT:-5000} ;; \
	esac

clean:  ## remove checkpoints and caches of tools; keep the data, the models, the reports and what MLflow lacks
	@if [ -d work ]; then find work -mindepth 1 -maxdepth 1 ! -name runs ! -name unsynced ! -name '*.lock' -exec rm -rf {} +; fi
	@for run in work/runs/*/; do if [ -e $$run/published ]; then rm -rf $$run; else rm -rf $$run/checkpoint.safetensors $$run/previous.safetensors $$run/decides.json $$run/evaluated $$run/checkpoints; fi; done
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
