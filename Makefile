# Every target sets itself up: Python 3.11+, pip and make are all a machine needs.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/demo
PEERS := benchmarks/.venv
BENCHES ?= step lif convolution memory inference branches scaling
REPETITIONS ?= 10
XDIST := --numprocesses auto --dist loadfile --no-loadscope-reorder # a file a process, slow files first

.PHONY: demo test test-fast bench check format clean

.venv/ready: pyproject.toml constraints.txt hatch_build.py $(wildcard src/spikeback/ops/native/*.cpp)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]' --constraint constraints.txt
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # as pip would, on all cores; some packages hold templates
	touch $@

demo: .venv/ready  ## three trainings of one deep spiking ResNet, table and report; again: what is missing
	$(BIN)/spikeback compare --config demo --out $(RUN) --resume

test: .venv/ready  ## all tests; those of the peers' networks where these are installed
	$(BIN)/python -m pytest $(XDIST)

test-fast: .venv/ready  ## what a change breaks first, in about two minutes
	$(BIN)/python -m pytest $(XDIST) -m "not slow and not peers and not gpu"

$(PEERS)/ready: benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $<
	touch $@

bench: .venv/ready $(PEERS)/ready  ## speed and memory against other frameworks; on a quiet machine, docs/bench.md
	for bench in $(BENCHES); do \
		$(BIN)/spikeback bench $$bench --repetitions $(REPETITIONS) --out results/bench/$$bench.json || exit; \
	done

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv $(PEERS) dist build .pytest_cache .ruff_cache
