# Everything starts here: `make demo` shows the product on this machine, `make test` checks it.
# Both set up .venv when it is missing or out of date; a second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DIST := dist
DEMO_FLAGS ?=

.PHONY: help setup demo test bench-cpu bench-inference bench-planner bench-products bench-scaling bench-training bench-tuning check wheel clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP) ## Create .venv and install txlplan with everything that its demo and tests need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "txlplan needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,test]"
	touch $@

demo: $(STAMP) ## Real text to a trained model and a report of prediction against measurement (under 10 minutes)
	$(BIN)/txlplan demo $(DEMO_FLAGS)

test: $(STAMP) ## All tests, with line coverage
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --cov --cov-report=term --cov-fail-under=85

bench-cpu: $(STAMP) ## How good predictions of this CPU are, after a probe and after calibration (about 25 minutes; goes on if cut off)
	$(BIN)/python benchmarks/cpu_accuracy.py

bench-inference: $(STAMP) ## Scoring and generating against Hugging Face's transfo-xl, in pairs (about 3 minutes)
	for what in score generate long dispatch; do $(BIN)/python benchmarks/inference.py $$what || exit 1; done

bench-planner: $(STAMP) ## One estimate, a million, the whole space of 1,024 devices, twenty systems (under 1 minute)
	$(BIN)/python benchmarks/planner.py --million --compare

bench-products: $(STAMP) ## How well a probe's matrix products tell of others on this CPU, and of those within tokens (about 4 minutes)
	for what in layers tokens within; do $(BIN)/python benchmarks/cpu_products.py $$what || exit 1; done

bench-scaling: $(STAMP) ## How a training step grows with length, memory, width and batch (about 2 minutes)
	$(BIN)/python benchmarks/scaling.py

bench-tuning: $(STAMP) ## What tuning gains and costs against measuring every plan (about 15 minutes)
	$(BIN)/python benchmarks/tuning.py

bench-training: $(STAMP) ## Training steps against Hugging Face's transfo-xl and our reference path, in pairs (about 12 minutes)
	for config in tiny wt103 enwik8; do $(BIN)/python benchmarks/training.py speed $$config --against hugging-face || exit 1; done
	for config in tiny wt103 enwik8; do $(BIN)/python benchmarks/training.py speed $$config --against hugging-face --ours compiled || exit 1; done
	for config in tiny wt103; do $(BIN)/python benchmarks/training.py speed $$config --against reference || exit 1; done
	$(BIN)/python benchmarks/training.py dropout tiny

check: $(STAMP) ## Style, types and floors: ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

wheel: $(STAMP) ## Build the wheel, check its contents, install it into a clean environment and run it there
	rm -rf $(DIST) build/wheel-env
	$(BIN)/python -m build --wheel --outdir $(DIST)
	$(BIN)/check-wheel-contents --toplevel txlplan $(DIST)
	$(PYTHON) -m venv build/wheel-env
	build/wheel-env/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(DIST)/*.whl
	cd build && wheel-env/bin/txlplan --help >/dev/null && wheel-env/bin/txlplan hardware list

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(DIST) build artifacts txlplan-demo
