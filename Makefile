# Two commands do everything on a fresh machine with Python >= 3.11:
#   make demo   sets up .venv and runs the main job on synthetic sounds (a few minutes)
#   make test   sets up .venv and runs lint, types and the suite
# A third, make test-newest, runs the core of the suite with the newest of everything that pyproject.toml allows.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NEWEST ?= .venv-newest
# the one thing that is not the newest there: another torch would be gigabytes
TORCH  ?= $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-newest lint types suite faults clean

# The constraints file pins what is installed, torch first: its CPU build, where pip can find one, spares gigabytes.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,hf,onnx,tflite,ced,cloud,report,tensorboard,media]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/logitstore demo

test: lint types suite

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.test
	$(BIN)/mypy

suite: $(VENV)/.test
	$(BIN)/python -m pytest -m forks
	$(BIN)/python -m pytest -n 2 -m "not forks"

test-newest:
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet $(TORCH)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(TORCH) --editable '.[dev,ced,cloud,media]'
	$(NEWEST)/bin/python -m pytest -n 2 -m "not forks" tests/store tests/views tests/audio tests/cli

# The tests that break things, at full size (minutes); the suite does a little of each.
faults: $(VENV)/.test
	LOGITSTORE_FAULTS=full $(BIN)/python -m pytest -n 2 tests/faults

clean:
	rm -rf $(VENV) $(NEWEST)
