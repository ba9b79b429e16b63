# Everything that a fresh Debian or Ubuntu machine needs to build, show, test and measure tinytee. See 'make help'.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# tests in parallel; each worker may hold a few large models
JOBS ?= 2
PYTEST_ARGS ?=
# of the trusted application in OP-TEE: the secure memory of a session; its cryptography, nettle or bearssl; whether it takes
# keys in the clear (1; a board's own Makefile, ports/optee/ta, says 0)
HEAP ?= 2MiB
CRYPTO ?= nettle
DEVELOPMENT ?= 1

SYSTEM_STAMP := build/.system
VENV_STAMP := $(VENV)/.installed
C_FILES = $(shell git ls-files 'core/*.[ch]' 'ports/*.[ch]' 'examples/*.[ch]' 'fuzz/*.[ch]' 'bench/*.[ch]' 'tests/*.[ch]')
RESULTS := bench/results
SMOKE := build/bench/smoke
PYTHON_FILES := src tests bench tools examples

.PHONY: help demo test ta demo-optee demo-sgx test-optee check check-python check-c check-house bench bench-all bench-optee bench-sgx bench-smoke lib install format clean
.DEFAULT_GOAL := help

help: ## shows this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: lib ## runs a real network on a real photograph in 1 MiB of secure memory
	$(BIN)/tinytee demo

# Tests take and leave models of hundreds of megabytes; malloc keeps their memory, which a virtual machine is slow to give:
# quantizing VGG-19 took 28 s so, and 63 without.
MALLOC := GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296

test: lib optee-packages emulation-packages ## runs every test; those of OP-TEE boot it in QEMU
	$(MALLOC) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -rs --durations=10 $(PYTEST_ARGS)

ta: install optee-packages ## builds the OP-TEE trusted application, and a QEMU machine for it (HEAP=2MiB CRYPTO=nettle DEVELOPMENT=1)
	$(BIN)/tinytee optee setup --heap $(HEAP) --crypto $(CRYPTO) $(if $(filter 0,$(DEVELOPMENT)),--production)

demo-optee: lib optee-packages ## runs a real network on a real photograph inside OP-TEE, in QEMU's TrustZone
	$(BIN)/tinytee optee demo

demo-sgx: lib ## runs a real network on a real photograph in an SGX enclave, by an emulated processor
	$(BIN)/tinytee sgx demo

test-optee: lib optee-packages ## runs the tests that boot OP-TEE
	$(BIN)/python -m pytest -rs --durations=10 tests/optee $(PYTEST_ARGS)

.PHONY: emulation-packages optee-packages
emulation-packages: # a compiler and an emulator for AArch64, and memcheck
	@bash tools/install_system_packages.sh qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross valgrind

optee-packages:
	@missing=$$(bash ports/optee/qemu/prepare.sh --missing); [ -z "$$missing" ] || { \
	  $(if $(filter-out 0,$(shell id -u)),sudo) apt-get update -qq; \
	  $(if $(filter-out 0,$(shell id -u)),sudo) env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $$missing; }

check: check-python check-c check-house ## checks format, lint, types, warnings, the house's rules and the core's size

check-python: install
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/pyright

check-c: install
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/cmake -S . -B build/check -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DTINYTEE_WERROR=ON >/dev/null
	$(BIN)/cmake --build build/check -- --quiet

check-house: lib
	$(BIN)/python -m pytest -rs tests/checks
	$(BIN)/python tools/core_lines.py

bench: lib ## measures for about ten minutes, and writes docs/results.md
	$(BIN)/python bench/floors.py --json $(RESULTS)/floors.json
	$(BIN)/python bench/zoo.py --quick --json $(RESULTS)/zoo.json
	$(BIN)/python bench/kernels.py --json $(RESULTS)/kernels.json
	$(BIN)/python bench/paging.py resnet50 mobilenet_v2 --json $(RESULTS)/paging.json
	$(BIN)/python bench/report.py

bench-all: lib ## likewise, with every network at every budget: most of an hour
	$(BIN)/python bench/floors.py --precisions fp32,int8 --json $(RESULTS)/floors.json
	$(BIN)/python bench/zoo.py --json $(RESULTS)/zoo.json
	$(BIN)/python bench/kernels.py --json $(RESULTS)/kernels.json
	$(BIN)/python bench/paging.py --json $(RESULTS)/paging.json
	$(BIN)/python bench/report.py

bench-sgx: lib ## measures networks in SGX enclaves by an emulated processor for some minutes, and writes docs/results.md
	$(BIN)/python bench/enclave.py --json $(RESULTS)/sgx.json
	$(BIN)/python bench/report.py

bench-optee: lib optee-packages ## counts instructions inside OP-TEE for half an hour, and writes docs/results.md
	$(BIN)/python bench/trustzone.py
	$(BIN)/python bench/neon.py
	$(BIN)/python bench/report.py

bench-smoke: lib ## runs every benchmark for a moment, to see that it works; writes build/bench/smoke/results.md
	$(BIN)/python bench/floors.py lenet5 --json $(SMOKE)/floors.json
	$(BIN)/python bench/zoo.py --smoke --json $(SMOKE)/zoo.json
	$(BIN)/python bench/kernels.py --smoke --json $(SMOKE)/kernels.json
	$(BIN)/python bench/paging.py --smoke --json $(SMOKE)/paging.json
	$(BIN)/python bench/enclave.py lenet5 --budgets 1MiB --rounds 3 --json $(SMOKE)/sgx.json
	$(BIN)/python bench/report.py --results $(SMOKE) --page $(SMOKE)/results.md

lib: install ## builds libtinytee.so
	@$(BIN)/cmake -S . -B build -G Ninja -USKBUILD -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja >/dev/null
	@$(BIN)/cmake --build build -- --quiet

install: $(VENV_STAMP)

$(SYSTEM_STAMP): tools/install_system_packages.sh
	@bash tools/install_system_packages.sh
	@mkdir -p $(@D) && touch $@

$(VENV_STAMP): pyproject.toml | $(SYSTEM_STAMP)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# what builds tinytee, and pyaegis where there is no wheel of it
	$(BIN)/python -m pip install --quiet 'scikit-build-core>=0.10' 'cmake>=3.21' ninja 'setuptools>=80.9' 'wheel>=0.45.1' 'cffi>=2'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev,demo]'
	@touch $@

format: install ## formats Python and C
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/clang-format -i $(C_FILES)

clean: ## removes what was built; the virtual environment stays
	rm -rf build dist out .pytest_cache .hypothesis .ruff_cache
	rm -f $(VENV_STAMP)
	find src tests bench tools examples -name __pycache__ -type d -prune -exec rm -rf {} +
