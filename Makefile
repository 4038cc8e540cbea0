# `make help` lists the targets. Whatever needs Python finds it in .venv, made the first time
# from a Python of 3.11 or newer and the versions in constraints.txt.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The peers that benchmarks/ measures: nothing else needs them.
PEERS := $(VENV)/.peers
# PYTHON=/path/to/python chooses another one than the first that is found.
PYTHON ?=
# The tests run in so many processes, each with a RabbitMQ of its own; in one where
# RABBITRY_TEST_URL names it. Three for two cores: they wait more than they compute.
PROCESSES ?= 3
# In the order of tests/conftest.py, which lets the longest begin first.
SHARED = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# `make soak` also runs what jobs and their ways depend on against the oldest RabbitMQ that will
# do: an image of it where an engine has or can pull one, else Debian's packages, as root. Where
# there is neither, it fails.
ON_OLDEST := env -u RABBITRY_TEST_URL -u RABBITRY_TEST_MANAGEMENT_URL RABBITRY_TEST_SERIES=4.0
OLDEST_TESTS := tests/integration $(wildcard $(addprefix tests/end_to_end/test_, \
	batches.py dead_letters.py delays.py once.py publish_from.py schedule.py worker*.py))
CANDIDATES := $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 \
	/usr/bin/python3 /usr/bin/python3.11

# Also what pip fetches apart to build this project is of the versions in constraints.txt;
# newer pips read the second name. Relative, since pip splits these at blanks.
PIN := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
# What hatchling asks for when the project is installed in place.
EDITABLE := editables
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint bench bench-check bench-report docs lock clean venv

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: $(STAMP) ## real jobs through a real RabbitMQ in less than two minutes
	@$(BIN)/python examples/demo.py

test: $(STAMP) ## all tests; those that need a RabbitMQ find or start one
	@$(BIN)/pytest $(if $(RABBITRY_TEST_URL),,$(SHARED))

soak: $(STAMP) ## the tests that take long
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -m soak $(if $(RABBITRY_TEST_URL),,$(SHARED))
	@HYPOTHESIS_PROFILE=thorough $(BIN)/pytest tests/unit
	@$(ON_OLDEST) $(BIN)/pytest $(SHARED) $(OLDEST_TESTS)
	@$(ON_OLDEST) $(BIN)/pytest -m soak tests/end_to_end/test_worker_retries.py

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(PEERS) ## measure beside the peers, in benchmarks/results/latest.jsonl; takes long
	@$(BIN)/python -m benchmarks

bench-check: $(PEERS) ## a small version; fails if a ratio fell by more than a quarter
	@$(BIN)/python -m benchmarks --check --within 150

bench-report: $(PEERS) ## write docs/benchmarks.md anew, from benchmarks/results/reference.jsonl
	@$(BIN)/python -m benchmarks.report

docs: $(STAMP) ## write the generated pages of docs/reference anew
	@$(BIN)/python docs/generate.py

venv: $(STAMP) ## make .venv

lock: ## write constraints.txt anew, with the newest versions that pyproject.toml allows
	@$(call make_venv,$(VENV)-lock)
	@$(VENV)-lock/bin/python $(PIP_INSTALL) --upgrade -e '.[dev,bench]' $(EDITABLE) $$($(VENV)-lock/bin/python -c \
		'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@sed -n '/^#/p' constraints.txt > $(VENV)-lock/constraints.txt
	@$(VENV)-lock/bin/python -m pip freeze --exclude-editable >> $(VENV)-lock/constraints.txt
	@mv $(VENV)-lock/constraints.txt constraints.txt
	@rm -rf $(VENV)-lock
	@git --no-pager diff --stat -- constraints.txt 2>/dev/null || true

clean: ## remove .venv, caches and what the demo wrote
	rm -rf $(VENV) $(VENV)-lock .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(call make_venv,$(VENV))
	@echo "installing into $(VENV) the versions of constraints.txt" >&2
	@$(PIN) $(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(PEERS): $(STAMP)
	@echo "installing into $(VENV) the peers of benchmarks/" >&2
	@$(PIN) $(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[bench]'
	@touch $@

# Debian keeps what `python -m venv` needs in a package of its own. A folder that has no pip is
# what an attempt without that package left: it is made again.
define make_venv
set -eu; \
if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	python=; \
	for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11 or newer is needed and none was found; install python3," \
			"or name one: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing Debian's python3-venv, which $$python lacks" >&2; \
			apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive \
				apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; \
		fi; \
		if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
			echo "make: $$python cannot make a virtual environment;" \
				"install the package python3-venv" >&2; exit 1; \
		fi; \
	fi; \
	rm -rf $(1); \
	"$$python" -m venv $(1); \
fi
endef
