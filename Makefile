# `make run` trains an agent, `make test` runs the tests. Each first sees to .venv, once; again only when its inputs change.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -c requirements/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test lint bench dvc.yaml prove-resume prove-durable prove-lock fuzz docs server deploy worker clean

# Prefect on this machine alone, where the server's password is found by itself: see docs/orchestration.md.
PORT            ?= 4200
PREFECT_API_URL ?= http://127.0.0.1:$(PORT)/api
POOL            ?= cpu
FLOWS := HIPER_HOME=$(CURDIR) PREFECT_API_URL=$(PREFECT_API_URL) $(BIN)/python -m hiper.integrations.prefect

help:
	@echo "make run    games, demos, warm start, HAE training, evaluation and report, on this machine's CPU"
	@echo "make test   the tests"
	@echo "make lint   ruff and mypy"
	@echo "make bench  speed and exactness of ALFWorld, WebShop and HAE"
	@echo "make dvc.yaml  written anew from the table of the stages, hiper/runs/stage.py"
	@echo "make prove-resume  a run killed in 26 ways and resumed ends with the bits of an undisturbed run; twelve minutes"
	@echo "make prove-durable the power cut at 20 moments in all stages: what is said to be done is not lost; ten minutes, mounts a file as root"
	@echo "make prove-lock two commands want one directory at 50 random moments: one works, the other is refused; ten minutes"
	@echo "make fuzz   500 damages to the files that commands read: one clear message each, nothing lost; the table is runs/fuzz.md"
	@echo "make docs   the documentation as pages in site/"
	@echo "make server, make deploy, make worker   flows on this machine: docs/orchestration.md"
	@echo "make clean  remove .venv and caches; runs/ stays"

run: $(STAMP)
	$(BIN)/hiper run experiment=quickstart

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(STAMP)
	$(BIN)/hiper benchmark alfworld
	$(BIN)/hiper benchmark hae
	$(BIN)/hiper benchmark webshop

dvc.yaml: $(STAMP)
	$(BIN)/python -m hiper.integrations.dvc

prove-resume: $(STAMP)
	$(BIN)/python -m pytest -m slow -s tests/crash/test_kills.py tests/crash/test_damaged_checkpoints.py

prove-durable: $(STAMP)
	$(BIN)/python -m pytest -m slow -s tests/crash/test_power_cuts.py tests/crash/test_durable.py

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --cases 500 --table runs/fuzz.md

prove-lock: $(STAMP)
	$(BIN)/python -m pytest -m slow -s tests/test_run_lock.py

docs: $(STAMP)
	$(PIP) --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs site
	@echo "site/index.html"

server: $(STAMP)
	$(FLOWS) server --port $(PORT)

deploy: $(STAMP)
	$(FLOWS) deploy

worker: $(STAMP)
	$(FLOWS) worker --pool $(POOL)

# torch comes first and alone: its exact pin decides between a CPU build and gigabytes of CUDA.
$(STAMP): pyproject.toml requirements/constraints.txt scripts/check_build.py
	@$(PYTHON) scripts/check_build.py $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --quiet "$$(grep '^torch==' requirements/constraints.txt)"
	$(PIP) --quiet -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
