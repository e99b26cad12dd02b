# make book   the site, in _build/html          make test   everything that checks it
# make serve  the site in a browser             make run    execute the chapters that are stale
# make lab    the chapters in JupyterLab

VENV    := .venv
PY      := $(VENV)/bin/python
READY   := $(VENV)/.ready
PORT    ?= 8000
# Python 3.11 where there are several; a name on PATH counts only if it runs.
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
             $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: book serve lab run test test-lowest lint browser clean

book: $(READY)
	@rm -rf _build/html
	@$(VENV)/bin/jupyter-book build . -W --keep-going -n --all -q
	@echo "The book: $(CURDIR)/_build/html/index.html  (make serve shows it)"

serve: book
	@echo "http://localhost:$(PORT)/   Ctrl-C stops it"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

# Figures of a trusted notebook are drawn as SVG, and its rows of frames move; trust is a matter of this machine and of
# this version of the file, so it is given anew each time.
lab: $(READY)
	@$(VENV)/bin/jupyter trust book/*/*.ipynb >/dev/null
	@$(VENV)/bin/jupyter lab --ServerApp.root_dir=$(CURDIR)/book book/$(or $(CHAPTER),1-flow/01_min_norm.ipynb) $(LAB)

run: $(READY)
	@$(PY) -m implicitreg.runbook $(CHAPTER)

lint: $(READY)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m codespell_lib README.md CONTRIBUTING.md SECURITY.md book pkg tests

browser:
	@bash tests/book/browser/install.sh

test: book lint browser
	@BOOK_HTML=$(CURDIR)/_build/html $(PY) -m pytest -q -n 2 tests --doctest-modules pkg --nbmake --nbmake-timeout=120 book

# The tests of the package with the lowest versions that it allows, in an environment of their own; not part of `make test`.
LOWEST  := _build/lowest
BOOKISH := tests/book tests/benchmarks tests/test_runbook.py tests/test_plain.py
test-lowest:
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c tests/lowest.txt '.[torch]' \
	  setuptools pytest pytest-xdist hypothesis ipython nbformat
	@$(LOWEST)/bin/python -m pytest -q -n 2 tests $(BOOKISH:%=--ignore=%)

$(READY): requirements.txt constraints.txt pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version); this takes a few minutes once"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

clean:
	rm -rf _build
