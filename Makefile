# Two commands on a fresh machine: `make demo` and `make test`. Both make .venv first, once.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

MINUTES ?= 30

# pip's own words are shown when it fails, and kept: a machine with package indexes of its own makes it say a lot.
define install
$(BIN)/pip install --disable-pip-version-check --no-input --progress-bar off -q $(1) >$(VENV)/install.log 2>&1 || \
	{ cat $(VENV)/install.log; echo "nothing was installed: pip's words stand above, and in $(VENV)/install.log"; exit 1; } >&2
endef

.PHONY: demo test slowest fuzz gpu docs check format clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, then train on real data with SE and without, build, verify and time engines, and give a verdict"
	@echo "make test    install, then run the tests"
	@echo "make slowest the same, and then the 20 tests and the 20 files that took most processor time"
	@echo "make fuzz    input that nobody meant, of every kind, for MINUTES=30; every bad case with its seed"
	@echo "make gpu     on a machine with an NVIDIA GPU: build pycuda there, run the GPU tests and the GPU benchmark"
	@echo "make docs    the docs as a site, site/html/index.html: strict, links checked"
	@echo "make check   formatting, lint, types, import layers, no circles, no private names of other files"
	@echo "make format  rewrite the sources in the project's format"

# The environment is made anew only when what it is made from changes.
$(READY): setup.cfg pyproject.toml constraints.txt
	@echo "installing into $(VENV) with $(PYTHON) (about 6 GB, some minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call install,-c constraints.txt -e '.[dev]')
	@touch $@

demo: $(READY)
	@$(BIN)/sesurgery demo

test: $(READY)
	@$(BIN)/python -m pytest -q -n auto --dist worksteal

slowest: $(READY)
	@$(BIN)/python -m pytest -q -n auto --dist worksteal --processor-time 20

fuzz: $(READY)
	@$(BIN)/python -m tests.fuzz.fuzz --minutes $(MINUTES)

# pycuda has no wheels: it is compiled against the CUDA toolkit of the machine, whose nvcc must be found.
gpu: $(READY)
	@command -v nvidia-smi >/dev/null && nvidia-smi -L || { echo "no NVIDIA GPU here: nvidia-smi is not found, or finds none" >&2; exit 1; }
	@command -v nvcc >/dev/null || { echo "nvcc is not found: install the CUDA toolkit, and put its bin folder on PATH" >&2; exit 1; }
	@echo "building pycuda in $(VENV) (some minutes, once)"
	@$(call install,--no-binary pycuda -e '.[tensorrt]')
	@$(BIN)/python -m pytest -q -rs tests/gpu
	@$(BIN)/python benchmarks/gpu/latency.py

docs: $(READY)
	@$(BIN)/python docs/build_site.py
	@echo "open site/html/index.html"

check: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/test_promises.py -k "circles or import_each_other or underscore"

format: $(READY)
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

clean:
	rm -rf $(VENV) build site *.egg-info
