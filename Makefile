# make demo    a first look: index real photos, run the searches, print a table
# make test    everything that must hold: ruff, mypy, the import contract, the tests
# make bench   the timings the README quotes; minutes, on demand
# make table   what each part of the VAE is worth: every objective, three seeds; needs ../shared, resumes
# make clean   removes the environment and the caches
#
# Needs Python 3.11 or newer. The environment is made once and again when pyproject.toml changes. For `demo` alone it is
# small: no torch. Besides, only `table` calls pip, for the published weights that it starts from.

PYTHON ?= python3
EXTRAS ?= cpu,train,dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_EXTRAS := cpu,demo
DEMO_STAMP := $(VENV)/.installed-demo

.PHONY: demo test check lint types imports unit bench table install clean

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO_STAMP))
	$(BIN)/python -m mmsearch.cli.demo

test: check unit

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-cache

unit: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(STAMP)
	$(BIN)/python -m pytest -o addopts="-q -s -ra" -o timeout=1800 tests/bench

table: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[train,init]'
	$(BIN)/mmsearch train mmsearch/training/table.toml --table

install: $(STAMP)

# the stamp comes last: an installation that was interrupted is taken up again
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mmsearch needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); run 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[$(1)]'
	@touch $@
endef

$(STAMP): pyproject.toml
	$(call install,$(EXTRAS))

$(DEMO_STAMP): pyproject.toml
	$(call install,$(DEMO_EXTRAS))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find mmsearch indexer tests -name __pycache__ -type d -prune -exec rm -rf {} +
