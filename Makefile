# What people and CI run. `make demo` needs Python 3.11 or later and a C++ compiler, nothing else.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# On Linux PyPI's torch brings several GB of CUDA along. Whoever has told pip where to look knows better than this file.
ifeq ($(shell uname -s)$(PIP_FIND_LINKS)$(PIP_INDEX_URL)$(PIP_EXTRA_INDEX_URL),Linux)
TORCH_SOURCE := --extra-index-url $(CPU_INDEX)
endif

NATIVE := CMakeLists.txt pyproject.toml $(shell find native -type f 2>/dev/null)
# pip's output is long and mostly names: show what takes time, keep the rest for when it fails.
SHOW := awk '/^(  Downloading|Installing|Building|Successfully)/ { sub(/^ +/, ""); print "  " substr($$0, 1, 110); fflush() }'
PIP = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
define install
$(PIP) $(1) 2>$(VENV)/pip.log | $(SHOW) || { tail -n 40 $(VENV)/pip.log >&2; exit 1; }
endef

.PHONY: help
help:
	@echo "make demo    train, prune, compile, check and time LeNet-5; writes runs/demo/report.html (under 5 minutes)"
	@echo "make test    lint, types and all tests but the slow ones"
	@echo "make slow    the slow tests"
	@echo "make lint    ruff and mypy"
	@echo "make arm     the native library for aarch64: cross-compiled and tested on an emulated CPU"
	@echo "make sanitize the native library under AddressSanitizer, UBSan and ThreadSanitizer, with its whole test suite"
	@echo "make fuzz    a million hostile artifacts for the loader; INPUTS=20000 SECONDS=60 SEED=2 for less, or others"
	@echo "make bench   the targets of speed, single layers, whole models and scaling, beside nine other engines"
	@echo "make sweep   every model dense and sparse in every pattern, beside PyTorch and its dense self (hours; resumable)"
	@echo "make peers   environments of their own for the engines that need them (DeepSparse, LiteRT; 2.5 GB)"
	@echo "make docs    write the generated pages of docs/ and execute the code in all of them"
	@echo "make venv    $(VENV) with everything for development"
	@echo "make clean   remove what was built ($(VENV) and runs/ too: make distclean)"

.PHONY: demo
demo: $(VENV)/.built
	@$(BIN)/openwork demo

.PHONY: test
test: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: slow
slow: $(VENV)/.dev
	@$(BIN)/python -m pytest -q -m slow

.PHONY: arm
arm: $(VENV)/.dev $(VENV)/.arm
	@command -v qemu-aarch64 >/dev/null || { \
	  echo "make arm needs an emulator of aarch64 and a C library for it. Install them, then repeat the command:" >&2; \
	  echo "  Debian, Ubuntu:  sudo apt install qemu-user libc6-arm64-cross" >&2; \
	  exit 1; }
	@$(BIN)/python -m pytest -q tests/native/test_aarch64*.py

.PHONY: sanitize
sanitize: $(VENV)/.dev
	@$(BIN)/python -m pytest -q tests/native/test_sanitizers.py

INPUTS ?= 1000000
SECONDS ?= 86400
SEED ?= 1

.PHONY: fuzz
fuzz: $(VENV)/.dev
	@$(BIN)/python tests/native/fuzz_loader.py $(INPUTS) $(SECONDS) $(SEED)

.PHONY: lint
lint: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@echo "ruff and mypy: clean"

# Engines whose own environments cannot be made here are left out, and named.
.PHONY: bench
bench: $(VENV)/.bench
	@$(MAKE) --no-print-directory peers || true
	@$(BIN)/python benchmarks/run.py

.PHONY: sweep
sweep: $(VENV)/.bench
	@$(BIN)/python benchmarks/run.py sweep page

.PHONY: docs
docs: $(VENV)/.dev
	@$(BIN)/python -m openwork.cli._reference docs
	@$(BIN)/python -m pytest -q tests/docs

.PHONY: venv
venv: $(VENV)/.dev $(VENV)/.bench

.PHONY: compiler
compiler:
	@command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
	  echo "Openwork needs a C++20 compiler and found none. Install one, then repeat the command:" >&2; \
	  echo "  Debian, Ubuntu:  sudo apt install g++" >&2; \
	  echo "  Fedora:          sudo dnf install gcc-c++" >&2; \
	  echo "  macOS:           xcode-select --install" >&2; \
	  exit 1; }

$(VENV)/.venv: | compiler
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Openwork needs Python 3.11 or later; name one with: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and by itself: the line that picks its source must not pick that of any other package.
$(VENV)/.torch: constraints.txt $(VENV)/.venv
	@echo "installing pinned libraries into $(VENV) (1 to 3 minutes)"
	@$(call install,torch==2.13.0 $(TORCH_SOURCE))
	@touch $@

$(VENV)/.built: $(NATIVE) constraints.txt $(VENV)/.torch | compiler
	@$(call install,cmake ninja nanobind scikit-build-core)
	@echo "building the native library"
	@$(call install,--no-build-isolation --editable '.[onnx]')
	@touch $@

# The extras' lists alone: installing the package with an extra would build it again.
EXTRA = $(BIN)/python -c 'import sys, tomllib; \
  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'

$(VENV)/.dev $(VENV)/.bench $(VENV)/.arm: $(VENV)/.%: $(VENV)/.built
	@$(EXTRA) $* >$(VENV)/$*.txt
	@$(call install,--requirement $(VENV)/$*.txt)
	@touch $@

# Engines to compare with that need other versions of libraries than ours; where peers/_process.py looks for them.
ENVIRONMENTS := $(patsubst benchmarks/environments/%.txt,$(VENV)/peers/%/.made,$(wildcard benchmarks/environments/*.txt))

.PHONY: peers
peers: $(ENVIRONMENTS)

$(VENV)/peers/%/.made: benchmarks/environments/%.txt | $(VENV)/.venv
	@echo "making an environment for $*"
	@$(PYTHON) -m venv $(@D)
	@! grep '^torch==' $< >$(@D)/torch.txt || \
	  $(@D)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $(@D)/torch.txt $(TORCH_SOURCE) 2>$(@D)/pip.log || \
	  { tail -n 20 $(@D)/pip.log >&2; exit 1; }
	@$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $< 2>$(@D)/pip.log || \
	  { tail -n 20 $(@D)/pip.log >&2; exit 1; }
	@touch $@

.PHONY: clean
clean:
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis $(VENV)/.built $(VENV)/.dev $(VENV)/.bench $(VENV)/.arm
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean
	@rm -rf $(VENV) runs
