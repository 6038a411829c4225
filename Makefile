# `make demo`: verdicts on sample images, in ./demo.   `make test`: everything that has to hold.
# Both build .venv when it is missing or older than what it is built from, and otherwise use it as it stands.

PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help demo test lint format browser

help:
	@echo "make demo    judge sample images with the embedded model; evidence in ./demo"
	@echo "make test    lint, then the whole suite (installs what it needs, a browser included)"
	@echo "make lint    ruff and pyright alone"
	@echo "make format  let ruff lay out the code"

demo: .venv/.demo
	$(BIN)/python examples/demo_images.py demo/images
	$(BIN)/rediffuse detect demo/images --out demo/verdicts.csv --evidence demo/evidence --force
	@echo "Open $(CURDIR)/demo/evidence/index.html in a browser; every image has its own PNG beside it."

test: lint browser
	$(BIN)/pytest

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The tests open the evidence page in Chromium; without it, and without apt-get, that test alone is skipped.
browser:
	@if command -v chromium > /dev/null; then :; \
	elif command -v apt-get > /dev/null; then \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	else echo "Neither chromium nor apt-get is here: the browser test will be skipped." >&2; fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11 to 3.13; name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

# .venv/.demo and .venv/.dev are empty files that say: this extra is installed, as of this date.
.venv/.%: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$*]"
	@touch $@
