# `make run` trains an agent, `make test` runs the tests. Each first sees to .venv, once; again only when its inputs change: RUN is what the
# pipeline needs, DEV what the tests need beside it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.installed
DEV    := $(VENV)/.dev

# uv, where it is installed, reads the same lock files and checks the same hashes as pip.
UV     := $(shell command -v uv 2>/dev/null)
PIP    := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip --disable-pip-version-check install --no-compile) --quiet
LOCKED := $(PIP) --no-deps --require-hashes
# pip compiles one module after another, and all: this does it on all cores, without tests and without the hundreds of models of transformers.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/(tests?|transformers/models)/' $(VENV)/lib || true

# Which torch, see docs/install.md: cpu, cuda, or auto, the first of these that can be had. TORCH_INDEX: URL of an index that has CPU builds.
TORCH       ?= auto
TORCH_INDEX ?=
torch_cpu   := $(LOCKED) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements/torch-cpu.txt
torch_cuda  := $(LOCKED) -r requirements/torch-cuda.txt
torch_auto  := $(BIN)/python scripts/check_build.py --torch requirements/torch-cuda.txt || $(torch_cpu) || \
	{ echo "hiper: no CPU build of torch to be had here, so the CUDA build: some 3 GB. docs/install.md tells how to get the other." && $(torch_cuda); }

.DEFAULT_GOAL := help
.PHONY: help run test test-docs lint bench dvc.yaml prove-resume prove-durable prove-lock fuzz docs server deploy worker clean

# Prefect on this machine alone, where the server's password is found by itself: see docs/orchestration.md.
PORT            ?= 4200
PREFECT_API_URL ?= http://127.0.0.1:$(PORT)/api
POOL            ?= cpu
FLOWS := HIPER_HOME=$(CURDIR) PREFECT_API_URL=$(PREFECT_API_URL) $(BIN)/python -m hiper.integrations.prefect

help:
	@echo "make run    games, demos, warm start, HAE training, evaluation and report, on this machine's CPU"
	@echo "make test   the tests"
	@echo "make lint   ruff and mypy"
	@echo "make test-docs  the commands that README and the guides show, run at smoke size; some ten minutes"
	@echo "make bench  one table of speed: training, warm start, engines, HAE, commands; kept in runs/bench/; some five minutes"
	@echo "make dvc.yaml  written anew from the table of the stages, hiper/runs/stage.py"
	@echo "make prove-resume  a run killed in 26 ways and resumed ends with the bits of an undisturbed run; twelve minutes"
	@echo "make prove-durable the power cut at 20 moments in all stages: what is said to be done is not lost; ten minutes, mounts a file as root"
	@echo "make prove-lock two commands want one directory at 50 random moments: one works, the other is refused; ten minutes"
	@echo "make fuzz   500 damages to the files that commands read: one clear message each, nothing lost; the table is runs/fuzz.md"
	@echo "make docs   the documentation as pages in site/"
	@echo "make server, make deploy, make worker   flows on this machine: docs/orchestration.md"
	@echo "make .venv/.dev  what the tests and all integrations need, without running anything"
	@echo "make clean  remove .venv and caches; runs/ stays"

run: $(RUN)
	$(BIN)/hiper run experiment=quickstart

# Processes that share the tests, each of up to a gigabyte.
JOBS ?= 2

test: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope

test-docs: $(DEV)
	$(BIN)/python -m pytest -m slow tests/docs

lint: $(DEV)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(DEV)
	$(BIN)/python benchmarks/all.py

dvc.yaml: $(RUN)
	$(BIN)/python -m hiper.integrations.dvc

prove-resume: $(DEV)
	$(BIN)/python -m pytest -m slow -s tests/crash/test_kills.py tests/crash/test_damaged_checkpoints.py

prove-durable: $(DEV)
	$(BIN)/python -m pytest -m slow -s tests/crash/test_power_cuts.py tests/crash/test_durable.py

fuzz: $(DEV)
	$(BIN)/python -m tests.fuzz --cases 500 --table runs/fuzz.md

prove-lock: $(DEV)
	$(BIN)/python -m pytest -m slow -s tests/test_run_lock.py

docs: $(DEV)
	$(LOCKED) -r requirements/docs.txt
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs site
	@echo "site/index.html"

server: $(RUN)
	$(FLOWS) server --port $(PORT)

deploy: $(RUN)
	$(FLOWS) deploy

worker: $(RUN)
	$(FLOWS) worker --pool $(POOL)

# torch is in none of the lock files but its own two, and nothing else may bring it: --no-deps.
$(RUN): pyproject.toml requirements/run.txt requirements/torch-cpu.txt requirements/torch-cuda.txt scripts/check_build.py
	@$(PYTHON) scripts/check_build.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) -r requirements/run.txt
	$(torch_$(TORCH))
	$(PIP) --no-deps -e .
	$(COMPILE)
	@touch $@

# The tests compare with the original ALFWorld, which builds its planner from source.
$(DEV): $(RUN) requirements/dev.txt
	@$(PYTHON) scripts/check_build.py --planner $(VENV)
	$(LOCKED) -r requirements/dev.txt
	$(COMPILE)
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
