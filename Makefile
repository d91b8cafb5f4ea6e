# The commands of this project. Each makes the virtual environment it needs, once.
#
#   make demo    install the package and run the whole pipeline on rendered demo videos
#   make test    install the development tools and run the tests
#   make lint    formatter, linter, type checker, layer contracts
#   make env     only the environment with the development tools
#   make format  fix formatting and lint
#   make hooks   run the linters before each commit
#   make docs    build the documentation into site/, and refuse broken links
#   make wheel   build the package into dist/
#
# Settings: PYTHON (Python 3.11 or newer), VENV (the environment), PYTEST_ARGS, DEMO_ARGS.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$python; break; }; done)
PYTEST_ARGS ?=
# The tests of a file stay together, as they share what is slow to make; files come in our order.
IN_TWO_PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder
DEMO_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c constraints.txt
# Without an NVIDIA GPU, PyTorch for CPUs: 0.2 GB instead of 3 GB with CUDA. Where its index cannot
# be reached, the installation below takes PyTorch from the default index.
CPU_TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
INSTALL_CPU_TORCH := nvidia-smi >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ] || \
	$(INSTALL) -q --no-deps --retries 0 --timeout 10 --index-url $(CPU_TORCH_INDEX) \
	torch torchvision 2>/dev/null || true

.PHONY: help demo test lint env format hooks docs wheel

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.package-installed
	$(BIN)/avel demo $(DEMO_ARGS)

test: $(VENV)/.tools-installed
	$(BIN)/python -m pytest -m "not slow and not gpu" $(IN_TWO_PROCESSES) $(PYTEST_ARGS)

lint: $(VENV)/.tools-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

env: $(VENV)/.tools-installed

format: $(VENV)/.tools-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.tools-installed
	$(BIN)/pre-commit install

# From here, so that the hooks see the package of this folder. No network: see mkdocs.yml.
docs: $(VENV)/.tools-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --clean

wheel: $(VENV)/.package-installed
	rm -rf build  # what an earlier build left there would be packed too
	$(PIP) wheel -q --no-deps -w dist .

# A stamp is newer than what it was made from, so a second call installs nothing.
# Editable: an edit of the package shows without another install.
$(VENV)/.package-installed: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV): downloads about 1 GB, or up to 7 GB for PyTorch with CUDA."
	@$(INSTALL_CPU_TORCH)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.tools-installed: pyproject.toml constraints.txt | $(BIN)/pip
	@$(INSTALL_CPU_TORCH)
	$(INSTALL) -q -e '.[dev,docs]'
	@touch $@ $(VENV)/.package-installed

$(BIN)/pip:
	@test -n "$(PYTHON)" || { \
		echo "Python 3.11 or newer is needed, and neither python3.11 nor python3 is one." >&2; \
		echo "Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
