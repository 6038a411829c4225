# `make demo`: verdicts on sample images, in ./demo.   `make test`: all checks.
# Both build .venv if it is missing or older than the files that define it, and otherwise use it unchanged.

PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: help demo test lint format docs tour browser weights mutants

help:
	@echo "make demo    judge sample images with the embedded model; a report in ./demo"
	@echo "make test    lint, then the whole suite (installs everything that it needs, also a browser)"
	@echo "make lint    run ruff and pyright"
	@echo "make format  format the code with ruff"
	@echo "make docs    build the site: README, docs/ and the API reference, in build/site"
	@echo "make tour    run examples/tour.ipynb, and store its pictures in it"
	@echo "make browser install Chromium for the tests, if it is missing and there is apt-get"
	@echo "make weights train the embedded model and detector again (two hours on two cores; can be resumed)"
	@echo "make mutants change the code in small ways, and list changes that no test notices (takes two hours)"

demo: .venv/.demo
	$(BIN)/python examples/demo_images.py demo/images
	$(BIN)/rediffuse detect demo/images --out demo/verdicts.csv --report demo/report.html --force
	@echo "Open $(CURDIR)/demo/report.html in a browser."

# Two processes share the tests, file by file, with one thread each.
test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The pages of the site have the same paths as in the repository, so that relative links work in both.
PAGES := build/pages
docs: .venv/.dev
	rm -rf $(PAGES) build/site && mkdir -p $(PAGES)/src/rediffuse/weights
	cp -r README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs examples $(PAGES)
	cp src/rediffuse/weights/README.md $(PAGES)/src/rediffuse/weights
	$(BIN)/python -m nbconvert --log-level WARN --to markdown --output-dir $(PAGES)/examples examples/tour.ipynb
	$(BIN)/zensical build --clean --strict
	@echo "Open $(CURDIR)/build/site/index.html in a browser; its search needs a server:"
	@echo "$(BIN)/python -m http.server --directory build/site"

tour: .venv/.dev
	$(BIN)/python -m nbconvert --execute --ExecutePreprocessor.record_timing=False --inplace examples/tour.ipynb

# The recipe of src/rediffuse/weights. The detector works only with the file of weights in the same folder.
PHOTOS ?= ../shared/data/clothing/64px
WILD ?= ../shared/data/wild
WEIGHTS := src/rediffuse/weights
weights: .venv/.dev
	$(BIN)/rediffuse train diffusion --recipe clothing32 --data $(PHOTOS)/train --out runs/clothing32
	$(BIN)/rediffuse convert runs/clothing32/model $(WEIGHTS) --precision fp16 --force
	$(BIN)/python benchmarks/detector_data.py --wild $(WILD) --out runs/detector_data/originals
	$(BIN)/rediffuse align runs/detector_data/originals runs/detector_data/aligned --draws 3 --size 336
	$(BIN)/rediffuse align runs/detector_data/originals runs/detector_data/blurred --size 336 --seed 1 --blur 0.5 2
	$(BIN)/rediffuse train detector --data runs/detector_data/aligned --originals runs/detector_data/originals \
		--changed runs/detector_data/blurred \
		--model $(WEIGHTS) --out runs/detector --crop windows:8 --grid aligned --depths 2 --features bands_image
	rm -rf $(WEIGHTS)/detector && cp -r runs/detector/detector $(WEIGHTS)/detector
	cat runs/detector/report.txt

# benchmarks/mutants.py describes these variables.
MODULES ?=
SHARE ?= 1
JOBS ?= 1
mutants: .venv/.dev .venv/.mutants
	$(BIN)/python benchmarks/mutants.py --modules $(MODULES) --share $(SHARE) --jobs $(JOBS)

# The tests open the pages of reports in Chromium; without it, and without apt-get, this test is skipped.
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
