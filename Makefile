# Two commands do everything on a fresh machine with Python 3.11 (or 3.12, 3.13), git and make:
#   make demo    real outputs -> store -> two trained models -> evaluation -> an HTML page
#   make test    style, types and all tests; Chromium is installed with apt where there is none and the user is root
# and, for those who want to repeat the results (hours):
#   make experiments
# Each makes a virtual environment in .venv and installs what it needs, with the versions of constraints.txt.

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint browser site experiments clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, found {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# torch first and alone: the version of the constraints, not the newest that a dependency would pull in
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) "setuptools>=70.1" torch
	$(PIP_INSTALL) --no-build-isolation -e ".[paths]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) "setuptools>=70.1" torch
	$(PIP_INSTALL) --no-build-isolation -e ".[test]"
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/python datasets/demo/demo.py --out $(OUT)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests look at every page in a real browser. Root of a Debian system gets one here; else install it yourself.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else \
		echo "make test needs Chromium or Chrome, e.g. sudo apt install chromium" >&2; exit 1; \
	fi

test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The documentation as a site in site/, opens without a server.
site: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Hours on two cores; what is done is not done again, what was stopped goes on.
experiments: $(VENV)/.test
	$(BIN)/python experiments/seed-table/run.py --store datasets/reactions-xtb/reactions-xtb.zarr --work $(OUT)/seed-table
	$(BIN)/python experiments/seed-table/run.py --store datasets/reactions-xtb/reactions-xtb.zarr --work $(OUT)/seed-table --plan estimators
	$(BIN)/python experiments/seed-table/run.py --store datasets/reactions-xtb/reactions-xtb.zarr --work $(OUT)/seed-table --plan release
	$(BIN)/python experiments/seed-table/baseline.py --store datasets/reactions-xtb/reactions-xtb.zarr --work $(OUT)/seed-table
	$(BIN)/python experiments/seed-table/outcomes.py --store datasets/reactions-xtb/reactions-xtb.zarr --work $(OUT)/seed-table
	$(BIN)/python experiments/seed-table/tables.py
	$(BIN)/python experiments/crystals/run.py --work $(OUT)/crystals --write docs/phonons.md

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
