# Everything a newcomer needs: `make demo` and `make test` each start from a bare checkout, Python and git.
#
#   make demo      run the main job on the pictures that ship with the package
#   make test      the default tests; those on real pictures skip, and say so, until `make data` has run
#   make check     format, lint, types, import layers, tests: what must hold before a commit
#   make data      fetch, by name, the Debian packages whose pictures the tests use (about 100 MB, once a machine)
#   make parity    the tests against timm, which needs torchvision and so stays out of the environment
#   make slow      the tests that take more than a few seconds each: kills, Ray, whole training cycles
#   make mutants   plant faults in the stitching code one by one and see a test catch each
#   make docs      the manual, warnings as errors
#   make lock      resolve the dependencies anew and write constraints.txt
#
# Settings: PYTHON=python3.12, VENV=folder, OUTPUT=folder (demo), PYTEST_ARGS='-k frame -x'.

PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= demo-output
PARITY ?= .cache/parity
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# pip reads these two in every install, the second for the tools that build the package.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: venv demo test slow mutants check format lint types imports data parity docs lock
.DELETE_ON_ERROR:

venv: $(INSTALLED)

$(BIN)/python:
	@floor=$$(sed -n 's/^requires-python = ">=\([0-9.]*\)".*/\1/p' pyproject.toml); \
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$$floor'.split('.'))))" || \
	{ echo "$(PYTHON) is missing or older than Python $$floor; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -e '.[dev,docs]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/patchatlas demo $(OUTPUT)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto $(PYTEST_ARGS)

slow: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto -m slow $(PYTEST_ARGS)

mutants: $(INSTALLED)
	$(BIN)/python tools/mutate_stitch.py

check: format lint types imports test

format: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

data:
	$(PYTHON) tools/debian_data.py

# Without their dependencies, and in a folder of their own: torchvision's wheels ask for the CUDA build of torch.
$(PARITY)/.installed: $(INSTALLED)
	rm -rf $(PARITY)
	$(BIN)/python -m pip install --quiet --no-deps --target $(PARITY) timm==1.0.31 torchvision==0.28.0
	touch $@

parity: $(PARITY)/.installed
	PYTHONPATH=$(PARITY) $(BIN)/python -m pytest tests/parity $(PYTEST_ARGS)

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Another torch: make lock TORCH=2.14.0
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

lock: export PIP_CONSTRAINT :=
lock: export PIP_BUILD_CONSTRAINT :=
lock:
	rm -rf .cache/lock
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet torch==$(TORCH) -e '.[dev,docs]' hatchling editables
	tools/write_constraints.sh .cache/lock/bin/python > .cache/constraints.txt
	mv .cache/constraints.txt constraints.txt
	rm -rf .cache/lock
