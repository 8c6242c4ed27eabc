# Everything sets itself up in .venv; a fresh machine needs Python >= 3.10 and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint docs clean

demo: $(READY)  ## draw parts, fit, test, leave pictures in demo-output/
	rm -rf demo-output
	$(BIN)/blemish demo --output demo-output

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)  ## build the documentation in site/; warnings are errors
	$(BIN)/mkdocs build --strict

clean:  ## remove what the other targets made
	rm -rf .venv demo-output site

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
