# `make demo` and `make test` do all their set-up themselves; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RUN := runs/demo
RECIPE := $(if $(QUICK),tiny-quick,tiny)

.DEFAULT_GOAL := help
.PHONY: help setup test demo check format bench table fuzz clean

help:
	@echo "make demo          train, pack, score, compress and decode a tiny model; QUICK=1: about 4 minutes"
	@echo "make test          run every test"
	@echo "make check         ruff, ruff format --check, pyright"
	@echo "make format        let ruff repair what it can"
	@echo "make bench         run benchmarks/ and refresh README's table"
	@echo "make fuzz          damage every kind of file for MINUTES=5 and see that all is refused"
	@echo "make clean         remove $(VENV) and caches; runs/ stays"
	@echo "PYTHON=python3.12  which Python makes $(VENV) (3.11 or newer)"

setup: $(INSTALLED)

# The stamp is older than pyproject.toml or constraints.txt exactly when pip has something to do.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "parbyte needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "no venv module: install your system's python3-venv package" >&2; exit 2; }
	@echo "installing parbyte and what it needs into $(VENV) (once; minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		-c constraints.txt -e '.[dev]'
	@touch $@

# A worker holds about 1 GB: not more of them than a machine with many cores has memory for.
test: $(INSTALLED)
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

demo: $(INSTALLED)
	$(BIN)/parbyte run $(RECIPE) --out $(RUN)
	cmp $(RUN)/restored.txt $(RUN)/data/heldout.txt
	@echo "a fresh process restored the held-out text byte for byte: $(RUN)/restored.txt"
	@echo "report     $(RUN)/report.html"
	@echo "scorecard  $(RUN)/scorecard.json"

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/table.py

table: $(INSTALLED)
	$(BIN)/python benchmarks/table.py

MINUTES ?= 5
fuzz: $(INSTALLED)
	$(BIN)/python tests/fuzz/harness.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
