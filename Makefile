# Everything is installed into .venv; `make` alone lists the targets.
#   PYTHON=python3.12 make install          another interpreter
#   TORCH_INDEX_URL=... make install        where torch comes from (CPU or CUDA builds)

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
DEMO_DIR ?= runs/demo
DEMO_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)
FROM := $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
SPELLED := src tests docs benchmarks config examples ops scripts Makefile CHANGELOG.md CONTRIBUTING.md CITATION.cff
SPELLED += $(wildcard README.md)

export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-all lint format bench docs wheel clean

help:
	@echo "make demo     synthetic climate to report, no download; prints the report's path"
	@echo "make test     the fast tests, $(WORKERS) at a time"
	@echo "make test-all slow tests too"
	@echo "make lint     ruff, mypy, codespell"
	@echo "make format   let ruff rewrite the code"
	@echo "make bench    the quick benchmark"
	@echo "make docs     the documentation, in site/"
	@echo "make wheel    the distribution, in dist/"
	@echo "make install  the package alone; install-dev adds the tools above"
	@echo "make clean    remove build products (not .venv, not runs)"

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# torch first: a resolver that meets it later may choose another build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(FROM) "$(TORCH)"
	$(PIP) --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable ".[docs]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/st-cdgm demo --out $(DEMO_DIR) $(DEMO_FLAGS)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not gpu"

test-all: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $(SPELLED)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/smoke.py

docs: $(VENV)/.installed-docs
	$(BIN)/python -m mkdocs build --strict

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
