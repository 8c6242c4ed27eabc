# Everything sets itself up in .venv; a fresh machine needs Python >= 3.10 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ENOUGH := .venv/.enough
PEER := .venv-peer/.ready
FLOORS := .venv-floors/.ready

.PHONY: demo test test-slow test-floors fuzz lint docs bench bench-peer backbone clean

demo: $(ENOUGH)  ## draw parts, fit, test, leave pictures in demo-output/
	rm -rf demo-output
	$(BIN)/blemish demo --output demo-output

test: $(READY)  ## run all tests but the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(READY)  ## run the slow ones
	$(BIN)/python -m pytest -m slow

test-floors: $(FLOORS)  ## attack model files and parsers on the oldest versions that pyproject.toml admits
	.venv-floors/bin/python -m pytest -k "not graphs" tests/unit/test_artifact.py tests/unit/features/test_weights.py \
	  tests/unit/data/test_roi.py tests/unit/data/test_manifests.py tests/unit/test_escaping.py

fuzz: $(READY)  ## hostile inputs for every parser, verbs killed at random moments: an hour and a half; Linux
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz/parsers.py --output fuzz-parsers.json
	$(BIN)/python tests/fuzz/kills.py --output fuzz-kills.json

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## build the documentation in site/; warnings are errors
	$(BIN)/mkdocs build --strict

bench: $(READY)  ## measure every claim in benchmarks/, beside the other library where .venv-peer has it
	$(BIN)/python benchmarks/coreset.py
	$(BIN)/python benchmarks/patchcore_fit.py
	$(BIN)/python benchmarks/padim_fit.py
	$(BIN)/python benchmarks/padim_fit.py --wide
	$(BIN)/python benchmarks/fit_memory.py --counts 200 2000
	$(BIN)/python benchmarks/many_sizes.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/runtimes.py
	$(BIN)/python benchmarks/anatomy.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/resize.py
	$(BIN)/python benchmarks/bounds.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/approximate.py
	$(BIN)/python benchmarks/pixel_metrics.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/decisions.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/areas.py
	$(BIN)/python benchmarks/cross_fit.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/merging.py
	$(BIN)/python benchmarks/summarize.py

bench-peer: $(PEER) bench  ## install the other library, then measure both

backbone: $(READY)  ## train the bundled backbone: hours on two cores, minutes on a GPU
	$(BIN)/python training/train.py --folder training/run/first --steps 7800 --anneal 2300
	$(BIN)/python training/train.py --folder training/run --start training/run/first/checkpoint.pt --steps 14000 --anneal 3000

clean:  ## remove what the other targets made
	rm -rf .venv .venv-peer .venv-floors demo-output site

$(ENOUGH): pyproject.toml  # what the demo needs, and no more
	@echo "Setting up .venv: blemish and PyTorch, some gigabytes to download unless pip has kept them."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[train]"
	touch $@

$(READY): pyproject.toml
	@echo "Setting up .venv for development: every runtime, database and browser driver, several gigabytes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(ENOUGH) $@

$(PEER):
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet "anomalib[openvino]==2.7.0"
	.venv-peer/bin/python -W ignore -c "from anomalib.models import Padim, Patchcore"
	touch $@

$(FLOORS): pyproject.toml
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install --quiet uv
	.venv-floors/bin/uv pip install --quiet --python .venv-floors --resolution lowest-direct --editable ".[train,sign]"
	.venv-floors/bin/uv pip install --quiet --python .venv-floors pytest hypothesis
	touch $@
