# `make demo` and `make test` work from a bare clone: each makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

.PHONY: demo test test-all test-slow test-slurm lint golden faults audit gpu docs clean

.venv/installed: pyproject.toml  # rfbench alone
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-tests: .venv/installed  # and what its tests need
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/rfbench sweep prdp ddpo --suite tiny-shapes --seeds 0 --set name=demo --set epochs=3
	$(BIN)/rfbench compare results/demo

test: lint
	$(PYTEST)

test-all: lint  # in one run, whose fixtures the slow ones share; three processes, since many of those wait
	$(PYTEST) -m "slow or not slow" --numprocesses 3

test-slow: .venv/installed-tests
	$(PYTEST) -m slow --numprocesses 3

test-slurm: .venv/installed-tests  # those of the slow ones that sweep on a real Slurm
	$(PYTEST) -m slow tests/slurm

lint: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rfbench algorithms

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: .venv/installed-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

golden: .venv/installed-tests
	$(BIN)/python -m tests.golden.curves

faults: .venv/installed-tests  # docs/faults.md; one trial again: python -m tests.faults --kind kill --seed 17
	$(BIN)/python -m tests.faults

.venv/installed-audit: .venv/installed
	$(BIN)/python -m pip install --quiet pip-audit
	touch $@

audit: .venv/installed-audit  # known weaknesses of the installed dependencies
	$(BIN)/python -m pip_audit --skip-editable

gpu: .venv/installed
	$(BIN)/python benchmarks/gpu/run.py

clean:
	rm -rf .venv build *.egg-info
