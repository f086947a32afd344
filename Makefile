# Two commands for everybody: `make demo` and `make test`. Each sets up all it needs on a machine with Python 3.11+.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed

# Each of Ray's workers imports the package: where no bytecode is kept, each compiles all of it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults fuzz audit sbom check docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "raystp needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) --version 2>&1); name one: make PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV) (once; a few minutes and about 2.5 GB) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -c constraints-cpu.txt -e '.[cpu,s3,dev]' >$(VENV)/install.log 2>&1 || { \
	  tail -n 20 $(VENV)/install.log; echo "the installation failed; its log is $(VENV)/install.log"; exit 1; }
	@touch $@

demo: $(STAMP)  ## draw a synthetic cohort, run the whole path on it, print the scores and the report's path
	@$(BIN)/raystp demo

test: $(STAMP)  ## the tests, a process for each core; one of them runs those that start Ray
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 -m 'not faults'

test-faults: $(STAMP)  ## the long tests: every fault and every job, for real; outside CI
	@$(BIN)/python -m pytest -m faults

fuzz: $(STAMP)  ## 10^6 changed files to all readers of foreign files; OUT=FILE, ARGS="--executions N --target NAME"
	@$(BIN)/python -m tests.security.fuzz.run $(if $(OUT),--out $(OUT)) $(ARGS)

audit:  ## known vulnerabilities of the pinned packages; a package that the advisory service does not know is an error
	@$(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install -q 'pip-audit>=2.10,<3'
	@$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints-cpu.txt

sbom: $(STAMP)  ## what is installed, as CycloneDX, in sbom.cdx.json; OUT=FILE
	@$(PYTHON) -m venv $(VENV)/sbom && $(VENV)/sbom/bin/pip install -q 'cyclonedx-bom>=7.5,<8'
	@$(VENV)/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o $(or $(OUT),sbom.cdx.json) $(BIN)/python

bench-%: $(STAMP)  ## bench-read, -embed and all others of infra/benchmarks/README.md: figures side by side; OUT=FILE, ARGS=...
	@$(BIN)/python infra/benchmarks/bench_$*.py $(if $(OUT),--out $(OUT)) $(ARGS)

check: $(STAMP)  ## format, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(STAMP)  ## the documentation as a site, in site/; broken links are errors
	@$(BIN)/pip install -q -c constraints-cpu.txt -e '.[docs]' && $(BIN)/mkdocs build --strict

clean:  ## remove the environment, and what the demo and the documentation left
	@rm -rf $(VENV) demo site
