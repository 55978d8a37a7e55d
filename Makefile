# Bare `make` lists the commands. Needs nothing but python3 (3.11 or newer) with pip.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# Each process begins with its run of neighbours, whose kernels it makes once, and takes over tests of
# others when it is done. ARGS=-n0 runs all in one, as --pdb asks.
PARALLEL = -n auto --maxprocesses=4 --dist=worksteal

# One stamp an extra: made anew when pyproject.toml changes, otherwise nothing is run.
STAMP = $(VENV)/.weft-$(1)-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check laws golden bench conformance packages arm watch docs clean format

help: ## list the commands
	@echo "Weft: make COMMAND (PYTHON=python3.13 chooses the interpreter, ARGS='...' is passed on)"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(call STAMP,test) ## make .venv with Weft (editable) and its test extras

demo: $(call STAMP,demo) ## train, save, export, verify and serve a digit classifier
	$(VENV)/bin/weft demo $(ARGS)

test: $(call STAMP,test) ## run the tests (ARGS='-k conv' and the like are passed to pytest)
	$(PY) -m pytest -q $(PARALLEL) --durations=15 --durations-min=0.5 $(ARGS)

check: $(call STAMP,dev) ## format, lint, types, import law, size table
	@bad=; run() { echo "-- $$*"; "$$@" || bad=1; }; \
	run $(PY) -m ruff format --check --output-format concise .; \
	run $(PY) -m ruff check --output-format concise .; \
	run $(PY) -m basedpyright; \
	run $(PY) tools/import_law.py; \
	run $(PY) tools/sizes.py; \
	test -z "$$bad" && echo "check: clean" || { echo "check: not clean"; exit 1; }

format: $(call STAMP,dev) ## let ruff format the code and mend what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

laws: $(call STAMP,test) ## every law on every op of the registry
	$(PY) -m pytest -q $(PARALLEL) tests/laws $(ARGS)

golden: $(call STAMP,test) ## rewrite the golden texts; review them as a diff
	$(PY) -m pytest -q tests/golden --update-golden $(ARGS)
	git --no-pager diff --stat -- tests/golden

bench: bench/.venv/.installed bench/.venv-jax/.installed bench/.venv-tensorflow/.installed bench/.venv-onnx/.installed ## every workload beside its peers (environments of their own); writes bench/RESULTS.md
	bench/.venv/bin/python bench/suite.py --write --also eager,kernels,convs,compile_cost,startup $(ARGS)

conformance: .venv-conformance/.installed ## torch's names, arguments and operator samples (environment of its own)
	.venv-conformance/bin/python tools/conformance.py
	@bad=; .venv-conformance/bin/python -m pytest -q tests/conformance || bad=1; \
	PYTHONPATH=. .venv-conformance/bin/python -m tools.conformance_ops --write $(ARGS); \
	test -z "$$bad" || { echo "conformance: a test failed, see above"; exit 1; }

packages: .venv-packages/.installed ## timm, transformers, lightning and others on Weft (own environment, without torch)
	WEFT_PACKAGES=1 .venv-packages/bin/python -m pytest -q tests/programs/test_packages.py --durations=0 $(ARGS)

arm: $(call STAMP,test) ## kernels on an emulated ARM machine (qemu-user), and whether its bits are ours
	$(PY) tools/arm.py $(ARGS)

watch: $(call STAMP,test) ## every access of generated code checked against its room, for this machine and lesser ones
	@bad=; run() { echo "-- $$WEFT_TARGET $$*"; PYTHONPATH=. $(PY) -W ignore -m "$$@" || bad=1; }; \
	lesser=$$(PYTHONPATH=. $(PY) -c 'from tests.kernels.test_targets import lesser; print(*lesser())'); \
	for WEFT_TARGET in '' $$lesser; do export WEFT_TARGET; \
	  run tests.kernels.watched; \
	  run pytest -q -p no:cacheprovider -p tests.watch tests/kernels $(ARGS); \
	  run pytest -q -p no:cacheprovider -p tests.watch tests/laws/test_laws.py -k 'value or vjp or layout'; \
	done; test -z "$$bad"

docs: $(call STAMP,test) ## run the code blocks of README.md and docs/
	$(PY) -m pytest -q tests/test_docs.py $(ARGS)

clean: ## remove environments, caches, runs and build products
	rm -rf .venv .venv-conformance .venv-packages .venv-arm bench/.venv bench/.venv-* bench/.onnx build dist runs .pytest_cache .ruff_cache .hypothesis
	find src tests tools bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Debian's python3 may come without ensurepip: then the system's pip fills the environment.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Weft needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(PY) install -q pip; fi

$(VENV)/.weft-%-installed: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "installing Weft with the extra '$*' into $(VENV) (some minutes the first time)"
	@$(PY) -m pip install --disable-pip-version-check -q -e '.[$*]'
	@touch $@

# Each peer of the benchmarks in an environment of its own: their dependencies exclude each other.
bench/.venv/.installed: PEERS = -e . torch==2.13.0 onnx onnxscript matplotlib
bench/.venv-jax/.installed: PEERS = jax==0.10.2 jaxlib==0.10.2
bench/.venv-tensorflow/.installed: PEERS = tensorflow-cpu==2.21.0
bench/.venv-onnx/.installed: PEERS = onnxruntime==1.32.0 onnx openvino==2026.4.1 sympy

bench/.venv/.installed bench/.venv-jax/.installed bench/.venv-tensorflow/.installed \
bench/.venv-onnx/.installed: pyproject.toml
	@echo "installing $(PEERS) into $(@D)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --disable-pip-version-check -q $(PEERS)
	@touch $@

.venv-conformance/.installed: pyproject.toml
	@test -x .venv-conformance/bin/python || $(PYTHON) -m venv .venv-conformance
	.venv-conformance/bin/python -m pip install --disable-pip-version-check -q -e . torch==2.13.0 expecttest hypothesis pytest
	@touch $@

.venv-packages/.installed: pyproject.toml tests/programs/packages/requirements.txt
	@test -x .venv-packages/bin/python || $(PYTHON) -m venv .venv-packages
	@echo "installing Weft and the packages into .venv-packages (some minutes the first time)"
	@.venv-packages/bin/python -m pip install --disable-pip-version-check -q -e '.[test]'
	@.venv-packages/bin/python -m pip install --disable-pip-version-check -q --no-deps -r tests/programs/packages/requirements.txt
	@touch $@
