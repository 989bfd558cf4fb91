# What a developer does here. CONTRIBUTING.md says which of these to use when.

PYTHON ?= python3
PORT ?= 8001
SEED ?= 1
COUNT ?= 200

BIN := .venv/bin
READY := .venv/ready
COMPILE := .cache/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links

.PHONY: help setup run quick test tokens prove mutants lint pages image image-try lock clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

setup: $(READY)  ## make .venv with everything in it, from requirements.lock

run: setup  ## run the service on http://127.0.0.1:8001 (PORT=9000 for another port)
	@exec $(BIN)/kafka-chat serve --port $(PORT)

quick: setup lint  ## lint, and the tests that need neither a broker nor a socket
	$(BIN)/pytest tests/core

test: setup lint  ## lint, and all tests, real Kafka included
	@exec $(BIN)/python tests/run.py

tokens: setup  ## run the behaviour tests with access on and a token in each request (15 minutes)
	WITH_TOKENS=1 $(BIN)/pytest tests/behaviour

prove: setup  ## run the stress tests in full, of which `make test` runs a tenth: no client loses or doubles a message (15 minutes)
	PROVE=1 $(BIN)/pytest -o faulthandler_timeout=7200 tests/prove tests/behaviour/test_resume_clients.py -s

mutants: setup  ## make 200 small changes to the core, one at a time, and list those that tests/core does not notice (30 minutes)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target .cache/mutants/lib 'coverage==7.*'
	PYTHONPATH=$(CURDIR)/.cache/mutants/lib $(BIN)/python -m tests.mutants --seed $(SEED) --count $(COUNT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/lint-imports --config .importlinter.runtime
	@# 9: would require a checkpoint in every function. 114, 128: report functions that pass their task_status on. 124: a
	@# framework's handlers are async def, whether they await or not. 102, in tests: a deadline cancels the whole test.
	@# flake8-async is by far the slowest linter, so two processes run at a time; xargs fails if one of them does.
	find bench kafka_chat -name '*.py' | xargs -P 2 -n 20 $(BIN)/flake8-async --disable ASYNC9,ASYNC114,ASYNC124,ASYNC128
	find tests -name '*.py' | xargs -P 2 -n 20 $(BIN)/flake8-async --disable ASYNC9,ASYNC114,ASYNC124,ASYNC128,ASYNC102

pages: setup  ## open /docs and /redoc in Chromium, which must be installed; screenshots go to .cache/pages
	@[ -x .cache/browser/bin/python ] || $(PYTHON) -m venv .cache/browser
	.cache/browser/bin/pip install --quiet --disable-pip-version-check 'playwright==1.65.*'
	.cache/browser/bin/python tests/pages/look.py .cache/pages

image:  ## build the container image kafka-chat, with buildah or docker
	@if command -v buildah >/dev/null; then exec buildah build --format docker --tag kafka-chat .; \
		elif command -v docker >/dev/null; then exec docker build --tag kafka-chat .; \
		else echo "buildah or docker is needed: apt-get install buildah" >&2; exit 1; fi

image-try:  ## build the image on a base made here, start it and test it (as root, on Debian; a few minutes)
	@exec deploy/try_image.sh

lock: setup  ## resolve pyproject.toml into the requirements*.lock
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet uv
	$(COMPILE) --upgrade --extra auth --group test --group lint --group build pyproject.toml --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --extra auth pyproject.toml --output-file requirements-runtime.lock
	$(COMPILE) --constraints requirements.lock --group build --output-file requirements-build.lock

clean:  ## remove everything that these commands have made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed, as $(PYTHON): apt-get install python3, or make PYTHON=python3.12 and so on" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's venv is needed: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "installing what requirements.lock names into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
