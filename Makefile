# make demo   set up, run the quickstart grid, show its table
# make test   set up, run the tests
# make check  run ruff, mypy and import-linter
# make audit  look up known vulnerabilities and check licences of the installed packages; needs a network
# make docs   build the documentation as a site in build/site
# make test-lowest  run the tests with the lowest supported versions of the dependencies, in .venv-lowest

VENV ?= .venv
PYTHON ?= python3
# uv or pip: make demo INSTALLER=pip does not use uv at all.
INSTALLER ?= uv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-lowest browser check audit docs readme clean

# A separate lab, so that the committed results of the repository stay unchanged.
demo: $(STAMP)
	@[ -d demo ] || $(BIN)/fcnlab init demo
	$(BIN)/fcnlab grid run demo/experiments/quickstart.yaml

# In the order of the folders: by default the files with the fewest tests run last, which are the slowest ones.
# The tests start hundreds of processes: without bytecode files, each of them would compile all that it imports.
test: $(STAMP) browser
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The browser tests need Chromium. CI installs it as root; without Chromium the tests are skipped.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || { [ "$$CI" = true ] && [ "$$(id -u)" = 0 ] \
	  && apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || echo "Chromium not found: browser tests are skipped"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The two tools have an environment of their own, which is not audited.
AUDIT := $(VENV)-audit

audit: $(STAMP) $(AUDIT)/.installed
	$(AUDIT)/bin/python tools/audit.py --python $(BIN)/python

$(AUDIT)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(AUDIT)/bin/python -m pip install --quiet --constraint constraints.txt --group audit
	touch $@

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# torch and torchvision are resolved together and from one index: torchvision does not load with another build of torch.
# uv installs in a fraction of pip's time; where it cannot be installed or fails, pip does the same from the same constraints.
REQUIREMENTS := --quiet --constraint constraints.txt --editable . --group dev

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fcnlab needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing fcnlab and its dependencies into $(VENV) ..."
	[ "$(INSTALLER)" = uv ] && $(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip install --python $(BIN)/python $(REQUIREMENTS) || \
	  { $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && $(BIN)/python -m pip install $(REQUIREMENTS); }
	touch $@

# The lowest versions that pyproject.toml permits of the packages that it names, with their dependencies and the tools of the
# tests at their newest. Only uv resolves to the lowest versions. torch and torchvision are resolved together here too.
LOWEST := .venv-lowest

test-lowest: $(LOWEST)/.installed browser
	env -u PYTHONDONTWRITEBYTECODE $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	@echo "Installing fcnlab and the lowest versions of its dependencies into $(LOWEST) ..."
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --all-extras --resolution lowest-direct \
	  --output-file $(LOWEST)/lowest.txt pyproject.toml
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/lowest.txt \
	  --editable ".[all]" --group dev
	touch $@

# Fill the generated blocks of the README from the committed results.
readme: $(STAMP)
	$(BIN)/python docs/fill_readme.py

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) demo build *.egg-info
