# Needs Python 3.11 or newer with venv and pip, and make. Everything else goes into
# .venv (and .venv-lowest), once: a second call starts at once.

PYTHON ?= python3
DATASET ?= digits
ARGS ?=

VENV := .venv
LOWEST := .venv-lowest

# What runs where is said by markers in the tests; pyproject.toml explains them.
QUICK := not slow and not lab

# pip shows its own progress. The package is installed in place: edits count at once.
INSTALL := bin/python -m pip install --no-warn-script-location
# Side by side: building and compiling a small model keeps one core busy, no more. Each
# worker begins with neighbours, which share the files that they export.
PYTEST := bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.DELETE_ON_ERROR:
.PHONY: help demo wasm arm64 android test test-slow test-labs test-torch test-lowest \
    lint clean

help:
	@echo "make demo              dense network and 90 % sparse ticket, side by side"
	@echo "make demo DATASET=...  digits (default), mnist or cifar10; the last two are"
	@echo "                       read from TFDS_DATA_DIR"
	@echo "make wasm              LiteRT.js for on='wasm', outside of this folder; needs Node"
	@echo "make arm64             the emulated ARM64 of on='arm64', likewise; needs Debian"
	@echo "make android           adb and adbd for the tests of on='android', likewise"
	@echo "make test              the tests, on TensorFlow and on JAX"
	@echo "make test-slow         tests of more than ten seconds, on TensorFlow and on JAX"
	@echo "make test-labs         what runs in wasm, on emulated ARM64 and by adb; build those"
	@echo "                       three first"
	@echo "make test-torch        the tests, on torch"
	@echo "make test-lowest       the core of the tests, on the lowest versions claimed"
	@echo "make lint              ruff, mypy and import-linter"
	@echo "make clean             remove the environments and everything built"

demo: $(VENV)/.demo
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=2 $(VENV)/bin/python -m examples.demo \
	    --dataset $(DATASET) $(ARGS)

wasm:
	keras_tickets/runtime/labs/wasm/build

arm64: $(VENV)/.created
	PYTHON=$(VENV)/bin/python keras_tickets/runtime/labs/arm64/build

# A real phone needs none of it: see export/android/README.md.
android:
	export/android/build

# Both backends run, also when the first one fails.
test test-slow: $(VENV)/.test
	@status=0; \
	for backend in tensorflow jax; do \
	    echo "== tests on $$backend"; \
	    KERAS_BACKEND=$$backend $(VENV)/$(PYTEST) -m "$(CHOSEN)" $(ARGS) || status=1; \
	done; \
	exit $$status

test: CHOSEN := $(QUICK)
test-slow: CHOSEN := slow and not lab

test-torch: $(VENV)/.torch
	KERAS_BACKEND=torch $(VENV)/$(PYTEST) -m "$(QUICK)" $(ARGS)

# In place of a skip, a lab that is missing fails its tests.
test-labs: $(VENV)/.test
	KERAS_TICKETS_LABS_REQUIRED=1 KERAS_BACKEND=tensorflow \
	    $(VENV)/$(PYTEST) -m lab $(ARGS)

test-lowest: $(LOWEST)/.test
	KERAS_BACKEND=tensorflow $(LOWEST)/$(PYTEST) -m "lowest and $(QUICK)" tests $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that one step is done; it is older than what the step depends on
# when the step has to be done again.

$(VENV)/.created $(LOWEST)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	    "keras-tickets needs Python 3.11 or newer; $(PYTHON) is " \
	    + sys.version.split()[0] + ". Try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(@D)
	@touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml constraints.txt
	$(VENV)/$(INSTALL) -c constraints.txt -e ".[export,data]"
	@touch $@

$(VENV)/.test: $(VENV)/.created pyproject.toml constraints.txt
	$(VENV)/$(INSTALL) -c constraints.txt \
	    -e ".[tensorflow,jax,export,data,tfmot,plot,dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.torch: $(VENV)/.test
	$(VENV)/$(INSTALL) -c constraints.txt -e ".[torch]"
	@touch $@

# The tools of `dev` are not under test here: only those that run the tests.
$(LOWEST)/.test: $(LOWEST)/.created pyproject.toml constraints-lowest.txt
	$(LOWEST)/$(INSTALL) -c constraints-lowest.txt \
	    -e ".[tensorflow,jax,export,data,tfmot,plot]" \
	    pytest pytest-timeout pytest-xdist hypothesis
	@touch $@
