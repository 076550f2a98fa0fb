# make demo     set up, then complete and score the demo prompts on a local Ray: about a minute once installed
# make test     set up, then every check and every test of the gate: what .ci/run calls
# make test-all the gate and the long lane: 64 layers, lm-evaluation-harness, browser, training, long chaos
# make host     what the image has, on a host with NVIDIA GPUs: set up, then jobs/smoke.py
# make aot      the wheels that compile for GPUs that are not there, into .venv-aot: docs/full-size.md
# make lm-eval  lm-evaluation-harness, into .venv-lm-eval: docs/evaluation.md
# make docs     the documentation's site, into build/site; every warning is an error
# make stores   packages that read gs://, az:// and hf:// URLs, into .venv: docs/input.md
# make infra-check  Terraform, its policies and scripts, by terraform and the checkers in .venv-infra: docs/clusters/aws.md
# make check    ruff, mypy, import contracts        make fix      what ruff can repair by itself
# make lock     resolve pyproject.toml and requirements-*.in again into the lock files
#
# Needs python3 (3.11 or newer, with venv) and make; everything else goes into .venv. Another interpreter: make PYTHON=python3.12 demo
# On a machine with NVIDIA GPUs: make LOCK=requirements-cuda12.lock demo

PYTHON ?= python3
LOCK ?= requirements.lock
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(notdir $(LOCK))
OPTIONAL := infra-tools aot docs-tools
SOURCES := grok_batch pipeline actors jobs infra tests
# uv installs in a fifth of pip's time. INSTALLER=pip for machines that have only what Python brings:
# images, and nodes without the internet.
INSTALLER ?= uv
UV := .venv-uv/bin/uv

.PHONY: demo test test-all check fix lock setup host stores aot lm-eval docs docs-tools infra-tools infra-check clean
.DEFAULT_GOAL := demo

demo: setup
	$(BIN)/python jobs/demo/run.py

# The tools of installation and .venv first: what follows needs both, and two processes must not create either at once.
# Then two at a time: an installation is one process that waits for the network or copies files.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 check $(OPTIONAL:%=try-%)
	$(PYTEST) -m "not long"

test-all: setup
	@$(MAKE) --no-print-directory --jobs 2 check $(OPTIONAL:%=try-%) try-lm-eval
	$(PYTEST)

# Three workers on two cores, each a file at a time, long files first: much of their time is waiting for Ray.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# Many Python processes follow each other: without bytecode each compiles its libraries from source.
test test-all: export PYTHONDONTWRITEBYTECODE =

# Environments that some tests need; where one cannot be had, all other tests run all the same.
try-aot try-docs-tools try-lm-eval: setup
try-%:
	@$(MAKE) --no-print-directory $* || echo 'make $* failed: the tests that need it are skipped'

check: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

fix: setup
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

setup: $(INSTALLED)

# $(call install,ENVIRONMENT,LOCK FILE AND FLAGS): every package is compared with the digest in the lock file.
ifeq ($(INSTALLER),uv)
INSTALL_TOOL := $(UV)
install = $(UV) pip install --quiet --python $(1)/bin/python --require-hashes -r $(2)
else
INSTALL_TOOL :=
install = $(1)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $(2)
endif

$(UV): requirements-uv.lock
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r $<
	@touch $@

# The content of infra/image/Dockerfile, without a container. On a machine without GPUs: make host LOCK=requirements.lock
host: LOCK = requirements-cuda12.lock
host:
	@$(MAKE) --no-print-directory LOCK=$(LOCK) setup
	$(BIN)/python jobs/smoke.py

# What reads gs://, az:// and hf:// URLs, beside the packages that .venv has.
stores: $(VENV)/.installed-stores

$(VENV)/.installed-stores: requirements-stores.lock $(INSTALLED)
	$(call install,$(VENV),$< --no-deps)
	@touch $@

# Redone only when the lock file changes. The .pth line makes the packages of this checkout importable from any script and
# any folder; it is relative to site-packages, so that a checkout may be moved or mounted elsewhere together with its .venv.
$(INSTALLED): $(LOCK) | $(INSTALL_TOOL)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("python 3.11 or newer is needed, but %s is %s; name another one, e.g. make PYTHON=python3.12 $(MAKECMDGOALS)" % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),$(LOCK))
	$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "grok_batch.pth").write_text("../../../..\n")'
	printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m grok_batch "$$@"\n' > $(BIN)/grok-batch
	chmod +x $(BIN)/grok-batch
	@touch $@

# Environments of their own, which see the packages of .venv and add those of requirements-NAME.lock: in .venv itself the wheels of
# aot would make every CPU run look for a GPU first, those of lm-eval are many and needed by one job only, and no job needs docs.
aot: .venv-aot/.installed

lm-eval: .venv-lm-eval/.installed

docs-tools: .venv-docs/.installed

docs: docs-tools
	.venv-docs/bin/mkdocs build --quiet --config-file infra/site/mkdocs.yml

.venv-%/.installed: requirements-%.lock $(INSTALLED)
	$(BIN)/python -m venv .venv-$*
	$(call install,.venv-$*,$< --no-deps)
	.venv-$*/bin/python -c 'import os, pathlib, sys, sysconfig; own = sysconfig.get_path("purelib"); pathlib.Path(own, "packages.pth").write_text("../../../../$(VENV)/" + os.path.relpath(own, sys.prefix) + "\n")'
	@touch $@

# A folder of their own: these checkers pin libraries of which the job uses other versions.
infra-tools: .venv-infra/.installed

.venv-infra/.installed: requirements-infra.lock | $(INSTALL_TOOL)
	$(PYTHON) -m venv .venv-infra
	$(call install,.venv-infra,$<)
	@touch $@

# A check whose tool is missing is an error, unless INFRA_SKIPS=allow.
INFRA_SKIPS ?= fail
infra-check: setup infra-tools
	INFRA_SKIPS=$(INFRA_SKIPS) $(BIN)/python -m pytest tests/infra

# uv resolves for every platform and Python at once, which pip cannot.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock"

# What .venv has with either lock file, an environment that sees it need not install again.
NOT_IN_LOCK = $$(sed -n 's/^\([a-z0-9.-]*\)==[^;]*$$/--no-emit-package \1/p' requirements-cuda12.lock)

lock: $(UV)
	$(COMPILE) requirements-uv.in -o requirements-uv.lock
	$(COMPILE) pyproject.toml --extra dev -o requirements.lock
	$(COMPILE) pyproject.toml --extra cuda12 -o requirements-cuda12.lock
	$(COMPILE) requirements-aot.in --no-deps -o requirements-aot.lock
	$(COMPILE) requirements-infra.in -o requirements-infra.lock
	$(COMPILE) requirements-docs.in -c requirements.lock $(NOT_IN_LOCK) -o requirements-docs.lock
	$(COMPILE) pyproject.toml --extra gcs --extra azure --extra hf -c requirements.lock $(NOT_IN_LOCK) \
		-o requirements-stores.lock
	$(COMPILE) pyproject.toml --extra lm-eval -c requirements.lock $(NOT_IN_LOCK) -o requirements-lm-eval.lock

clean:
	rm -rf $(VENV) .venv-aot .venv-docs .venv-lm-eval .venv-infra .venv-uv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
