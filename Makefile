# handloom's commands. Everything happens in ./.venv, which the first command makes; PYTHON picks the interpreter.

PYTHON ?= python3
OUT ?= demo-results
# The build of torch does not matter to the tests; where the index offers the one for CPUs, it is the smallest.
ORACLES ?= torch==2.13.0
# What `make test-ptx` takes: CUDA 12 or 13, and a CuPy over it. The tests pretend the CUDA of that CuPy: they know how
# it calls CUDA, which may change with its version. (In the environment CUDA is often the name of a folder.)
CUDA = 13
CUPY ?= cupy-cuda$(CUDA)x==14.2.0

# Whether an interpreter has what CUDA kernels need, so that gpu-check has to install nothing.
HAS_CUDA := import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("cupy", "numba", "numba_cuda", "rich"))))

VENV := .venv
BIN := $(VENV)/bin
PIP := python -m pip install --quiet --no-input --disable-pip-version-check

# Where `make test-ptx` runs, since an environment has one CUDA: the other tests compile with that of 12.
PTX := $(VENV)/cuda$(CUDA)

# Tests run side by side. Threads that wait must then sleep: those of two processes that spin stop each other.
TWO_AT_A_TIME := python -m pytest -n 2 --dist loadgroup
test test-cuda test-ptx: export OMP_WAIT_POLICY := passive

SHELL := /bin/sh

.DEFAULT_GOAL := help
.PHONY: help demo test test-oracles test-cuda test-ptx bench tables gpu-check clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

demo: $(VENV)/.demo ## train a CNN and an LSTM on handwritten digits; OUT=folder says where results go
	$(BIN)/handloom demo --out "$(OUT)"

test: $(VENV)/.test ## style, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/$(TWO_AT_A_TIME)

test-oracles: $(VENV)/.oracles ## the tests that compare with torch, which this installs
	HANDLOOM_ORACLES=1 $(BIN)/python -m pytest -m oracle

test-cuda: $(VENV)/.cuda ## the CUDA kernels without a GPU: in the simulator, and their machine code
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/$(TWO_AT_A_TIME) tests/cuda
	HANDLOOM_CUDA=1 $(BIN)/$(TWO_AT_A_TIME) tests/cuda

test-ptx: $(PTX)/.made ## the CUDA kernels compiled, and CuPy, whose arrays they take, without a GPU; CUDA=12 or 13
	HANDLOOM_PTX=1 $(PTX)/bin/$(TWO_AT_A_TIME) tests/cuda

bench: $(VENV)/.demo ## measure kernels and training steps on this machine
	$(BIN)/handloom bench

tables: $(VENV)/.demo ## rewrite the README's tables from bench/results
	$(BIN)/python -m handloom.bench.tables

gpu-check: ## verify and time every CUDA kernel on this machine's GPU; OUT=folder, CUBINS=folder, ARGS=--quick
	@if $(PYTHON) -c '$(HAS_CUDA)' 2>/dev/null; then python="$(PYTHON)"; \
	else $(MAKE) --no-print-directory $(VENV)/.gpu && python=$(BIN)/python; fi && \
	"$$python" bench/gpu $(if $(filter file,$(origin OUT)),,--out "$(OUT)") $(if $(CUBINS),--cubins "$(CUBINS)") $(ARGS)

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist *.egg-info demo-results .pytest_cache .ruff_cache .benchmarks .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages: what is installed is looked at again only when pyproject.toml changes.

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	    echo "make: there is no $(PYTHON): install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	    echo "make: handloom needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is `$(PYTHON) --version 2>&1 | head -n 1`:" \
	         "name another one, for example: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "make: $(PYTHON) cannot make virtual environments (its venv module is missing):" \
	         "install it, on Debian and Ubuntu with: sudo apt install python3-venv"; exit 1; }
	@echo "making $(VENV) and installing into it (the first time this downloads packages)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	@$(BIN)/$(PIP) --editable '.[plot]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.made
	@$(BIN)/$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.oracles: $(VENV)/.test
	@$(BIN)/$(PIP) '$(ORACLES)'
	@touch $@

$(VENV)/.cuda: $(VENV)/.test
	@$(BIN)/$(PIP) --editable '.[test,toolkit]'
	@touch $@

$(PTX)/.made: pyproject.toml | $(VENV)/.made
	@$(PYTHON) -m venv $(PTX)
	@$(PTX)/bin/$(PIP) --editable '.[test,cuda$(CUDA)]' '$(CUPY)'
	@touch $@

$(VENV)/.gpu: pyproject.toml | $(VENV)/.made
	@case `nvidia-smi 2>/dev/null | sed -n 's/.*CUDA [A-Z ]*Version: *\([0-9]*\).*/\1/p'` in \
	    12) extra=cuda12 ;; \
	    1[3-9]) extra=cuda13 ;; \
	    *) echo "make: nvidia-smi does not name a driver for CUDA 12 or later: install one, or name a Python that has" \
	            "CuPy and numba-cuda: make gpu-check PYTHON=/path/to/python3"; exit 1 ;; \
	esac; $(BIN)/$(PIP) --editable ".[$$extra]"
	@touch $@
