# Every target makes .venv by itself; a second call is quick. Needs Python 3.11 or newer and make.
#
#   make demo                 all of it in two minutes
#   make test                 the tests (make test-all: the long ones too)
#   make docs                 the API documentation, as HTML in build/api
#   make install EXTRAS=...   other extras, such as federated
#   make ... PIP_OPTIONS=--extra-index-url=URL    another package index, such as one with CPU builds

PYTHON ?= python3
EXTRAS ?= demo,test,lint
PIP_OPTIONS ?=
BIN := .venv/bin
comma := ,
STAMP := .venv/installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: install demo test test-all lint format docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }
	@echo "installing into .venv (the first time this takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) \
	    --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@rm -f .venv/installed-*
	@touch $@

demo: install
	@$(BIN)/hushtune demo

# A process for each core; torch with a thread for each core in every one of them would be slower.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m "slow or not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/generate_api.py build/api
	@echo "open build/api/index.html"

clean:
	rm -rf .venv
