# `make demo`, `make test` and `make docs` set up what they need in .venv, once, and run.
#   PYTHON=python3.12   which interpreter makes the environment (3.11 or later)
#   TORCH=              use the torch already installed for that interpreter, instead of the pinned one

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test docs lint install lock fuzz bench-install clean

demo: install
	$(BIN)/howsparse demo --output build/howsparse-demo.png --force

# A process for each core, at most eight. Each computes on one thread: more would only wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile

# The site, in build/site. A link that leads nowhere is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

# Many inputs, and many kills: none may end in a traceback, a hang or another answer. About half an hour.
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.kills

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: .venv/installed

# Every package is installed from requirements.lock, which names its version and the hashes of its files. torch is not
# in it, because its files differ: PyPI has the build for CUDA, a machine without a GPU may have another one, and TORCH=
# takes the one that is there. torch pins the packages for CUDA itself. All else that it needs is in the file.
.venv/installed: pyproject.toml requirements.lock Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "howsparse needs Python 3.11 or later")'
	$(PYTHON) -m venv $(if $(TORCH),,--system-site-packages) .venv
	$(PIP) --no-deps --require-hashes -r requirements.lock
	$(if $(TORCH),$(PIP) $(TORCH))
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Makes requirements.lock again after a change of what pyproject.toml asks for. Versions change only where they must.
lock: install
	$(PIP) uv==0.13.9
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate \
		--custom-compile-command 'make lock' --extra dev --group build --group torch-needs pyproject.toml \
		-o requirements.lock

# The other tools that benchmarks.limit compares with. Without --no-deps, backpack would bring torchvision, which belongs
# to one build of torch and breaks transformers beside another; nothing here imports it.
bench-install: .venv/bench-installed

.venv/bench-installed: .venv/installed benchmarks/peers.txt
	$(PIP) --no-deps -r benchmarks/peers.txt
	touch $@

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
