PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: run test lint format docs clean

run: $(VENV)/installed
	$(BIN)/python -m pipelines.compress

# A file on one worker: its tests share trained models, runs of scripts and compiled functions.
# Files in the order of tests/conftest.py, and not those with many tests first.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
# "Write words" in CONTRIBUTING.md has what to write instead.
	@! grep -rniwE tfpeft pipelines docs README.md --include=*.py --include=*.md --include=*.ipynb \
		-e "answer(s|ed|ing)?|tells?|told|taught|refuse[sd]?|looks? at|looked at" \
		-e "of (one's|your) own|made again|at once|by then" \
		-e "(number|row|file|signature|value) an? (task|layer|channel|output|step|epoch)" \
		| grep -v '"Taught": "PrecomputedInputs"'

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed
	$(BIN)/python docs/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open build/site/index.html"

clean:
	rm -rf $(VENV) build *.egg-info

# The stamp is written last: an installation that was cut off is done again.
$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]
	touch $@
