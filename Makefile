# `make demo` and `make test` are all that a newcomer types: each makes .venv, installs what is missing, and goes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8501
# More threads than physical cores made the same work several times slower.
CORES := $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())")
export OMP_NUM_THREADS ?= $(CORES)

.DEFAULT_GOAL := help
.PHONY: help demo test app lint

help:  ## What can be made here
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/installed  ## Run the complete demo audit on the embedded model, then open the app on it (PORT=8501)
	$(BIN)/biasdiff demo
	$(BIN)/biasdiff app --port $(PORT) --audit demo-fresh

test: $(VENV)/installed-dev  ## Run the whole suite, offline
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) --dist loadfile $(ARGS)

app: $(VENV)/installed  ## Serve the app on 127.0.0.1 (PORT=8501)
	$(BIN)/biasdiff app --port $(PORT)

lint: $(VENV)/installed-dev  ## Style, strict types of the core, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed: requirements.txt requirements-bundled.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps -r requirements-bundled.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
