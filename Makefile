# Two commands on a fresh machine: `make quickstart` trains on generated data, `make test` runs the tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install quickstart test test-fast test-full docs lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable '.[lite,fast,parquet,video,demo,export,dashboard,joblib,slurm,optuna,dev]'
	touch $@

quickstart: install ## train FastFCN on generated shapes: about a minute on two cores, nothing is downloaded
	$(BIN)/python -m fastfcn_pl.train -cn quickstart

test: install ## all tests but the exhaustive ones
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not exhaustive"

test-fast: install ## the fast lane
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-full: install ## everything
	$(BIN)/python -m pytest -n auto --dist worksteal

docs: install ## the documentation, strictly, in build/docs
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --quiet --site-dir build/docs

lint: install ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
