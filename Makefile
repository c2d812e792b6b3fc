# `make demo` and `make test` are all a new machine needs: each sets up .venv first, from the pinned requirements.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python

.PHONY: demo test bench bench-gpu lint format docs requirements clean
demo: .venv/ready
	$(PY) -m experiments.demo

test: .venv/ready
	$(PY) -m pytest -n 2 --dist loadfile

# ENV=DIR, an environment with PyTorch (experiments/peers/README.md), adds the same step in PyTorch.
PEERS = $(if $(ENV),--torch-python $(ENV)/bin/python)
bench: .venv/ready
	$(PY) -m experiments.benchmark $(PEERS)

bench-gpu: .venv/ready
	$(PY) -m experiments.bench_accelerator --out runs/bench-gpu $(PEERS)

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: .venv/ready
	$(PY) -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html"

format: .venv/ready
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# uv makes the environment; where it is not installed, it gets a small one of its own.
UV := $(shell command -v uv || echo .uv/bin/uv)
.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv

.venv/ready: requirements.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv $(UV) pip sync --quiet --compile-bytecode requirements.txt
	VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --editable .
	touch $@

# Newest versions that pyproject.toml allows, for Python 3.11. Later Pythons: pip install -e '.[data,report,dev]'.
requirements: | $(UV)
	$(UV) pip compile --quiet --upgrade --python-version 3.11 --all-extras --no-annotate --no-header pyproject.toml -o requirements.txt

clean:
	rm -rf .venv .uv .cache .pytest_cache .ruff_cache .mypy_cache build dist
