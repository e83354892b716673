# `make demo` and `make test` set up what they need in .venv, once, and run.
#   PYTHON=python3.12   which interpreter makes the environment (3.11 or later)
#   TORCH=              use the torch already installed for that interpreter, instead of the pinned one

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test lint install bench-install clean

demo: install
	$(BIN)/howsparse demo --output build/howsparse-demo.png --force

# A process for each core, at most eight. Each computes on one thread: more would only wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "howsparse needs Python 3.11 or later")'
	$(PYTHON) -m venv $(if $(TORCH),,--system-site-packages) .venv
	$(if $(TORCH),$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH))
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The other tools that benchmarks.limit compares with. Without --no-deps, backpack would bring torchvision, which belongs
# to one build of torch and breaks transformers beside another; nothing here imports it.
bench-install: .venv/bench-installed

.venv/bench-installed: .venv/installed benchmarks/peers.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.txt
	touch $@

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
