# Every target sets itself up: Python 3.11+, pip and make are all a machine needs.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/demo

.PHONY: demo test check format clean

.venv/ready: pyproject.toml constraints.txt hatch_build.py $(wildcard src/spikeback/ops/native/kernels.cpp)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

demo: .venv/ready  ## three trainings of one deep spiking ResNet, table and report; again: what is missing
	$(BIN)/spikeback compare --config demo --out $(RUN) --resume

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache
