# Two commands set up everything: `make demo` runs the main job on a real model, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := HF_HUB_OFFLINE=1 $(BIN)/

.PHONY: help demo cluster-demo test mutants fuzz soak sweep lint examples bench accelerator-check docs package clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /: /'

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "devmap needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready  ## Validate, plan, load and run a real model over simulated devices
	@$(RUN)python examples/demo.py

cluster-demo: $(VENV)/.ready  ## Two nodes of two simulated accelerators: tokens equal, a rank killed, a config edited
	@$(RUN)python examples/cluster_demo.py

test: $(VENV)/.ready  ## All tests
	$(RUN)python -m pytest

sweep: $(VENV)/.ready  ## Every class of Transformers at tiny size: headers, load, outputs, generation (an hour on two cores)
	$(RUN)python -m tests.sweep --quiet --groups causal,image-text,seq2seq,encoder,vision,speech,other,base

MINUTES ?= 5
fuzz: $(VENV)/.ready  ## Coverage-guided fuzzing of every reader, MINUTES of each (atheris: Linux, CPython up to 3.13)
	@$(BIN)/python -m pip install --quiet atheris
	@for target in config manifest lock policy machine settings header index pipeline file_names model_config \
		fixes plan_json override pattern; do \
		$(RUN)python scripts/fuzz.py $$target $(MINUTES) || exit 1; done

soak: $(VENV)/.ready  ## 20,000 passes and 300 loads of a small streamed model; memory, descriptors and threads stay flat
	$(RUN)python scripts/soak.py

mutants: $(VENV)/.ready  ## Break each promise of the resolver on purpose, and see its test fail (minutes)
	$(RUN)python scripts/promises.py

lint: $(VENV)/.ready  ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

examples: $(VENV)/.ready  ## Write the examples' manifests, locks and generated pages anew
	$(RUN)python examples/make_manifests.py
	$(RUN)python examples/make_locks.py

bench: $(VENV)/.ready  ## Every benchmark, with a peer and the bound beside us
	$(RUN)python benchmarks/planner.py --quick
	$(RUN)python benchmarks/validate.py --quick
	$(RUN)python benchmarks/streaming.py --quick
	$(RUN)python benchmarks/loading.py --quick
	$(RUN)python benchmarks/cluster.py --quick

accelerator-check: $(VENV)/.ready  ## Prove the runtime on this machine's accelerators (SIMULATED=1 rehearses it)
	$(RUN)python scripts/accelerator_check $(if $(SIMULATED),--simulated)

docs: $(VENV)/.ready  ## The documentation as a site, in site/; every link is checked
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

package: $(VENV)/.ready  ## The wheel and the source archive in dist/, checked in a clean environment
	@$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python scripts/check_package.py

clean:  ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site *.egg-info
