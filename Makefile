# `make demo` and `make test` work from a bare clone: each makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint golden clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: .venv/installed
	$(BIN)/rfbench run prdp --suite tiny-shapes --overwrite
	$(BIN)/rfbench run ddpo --suite tiny-shapes --overwrite
	$(BIN)/rfbench compare results/tiny-shapes

test: .venv/installed lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rfbench algorithms

golden: .venv/installed
	$(BIN)/python -m tests.golden.curves

clean:
	rm -rf .venv build *.egg-info
