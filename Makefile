# Two commands: `make dream` (PHOTO=me.jpg for your own) and `make test`.
PYTHON ?= python3
PYTHON313 ?= python3.13
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?=
SECTIONS ?=
OUT ?= $(if $(PHOTO),$(basename $(PHOTO))-dream.png,dream.png)

.PHONY: dream film test test-slow test-313 test-all check docs lessons bench clean

dream: $(VENV)/.installed
	$(BIN)/phosphene dream $(if $(PHOTO),"$(PHOTO)",) -o "$(OUT)" --force

# A zoom of six seconds through the bundled network, into a sky: some minutes on two cores.
film: $(VENV)/.film
	$(BIN)/phosphene zoom --start sky --layers mixed3b,mixed4c,mixed5a --seconds 2 --size 320 \
	  -o zoom.mp4 --force

test: $(VENV)/.tested
	VENV=$(VENV) scripts/test

# The tests that take long: benchmarks in small, training in earnest, the documentation as a whole.
test-slow: $(VENV)/.tested $(VENV)/.documented
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# The tests on a second Python, in a second environment, where it is there.
test-313:
	@if $(PYTHON313) -c "" 2>/dev/null; then \
	  $(MAKE) test VENV=.venv313 PYTHON=$(PYTHON313); \
	else echo "No $(PYTHON313) here: tested on one Python"; fi

test-all: test test-slow test-313

check: $(VENV)/.tested
	scripts/check

# The documentation, as a site that is read from the disk; what is amiss is an error.
docs: $(VENV)/.documented
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "$(CURDIR)/docs/_build/html/index.html"

# The lessons, in JupyterLab.
lessons: $(VENV)/.notebook
	$(BIN)/jupyter lab lessons

# All of docs/speed.md, about half an hour on two cores; SECTIONS="steps start" for some of it.
bench: $(VENV)/.tested
	$(BIN)/python -m benchmarks $(SECTIONS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing phosphene into $(VENV) (PyTorch is large: a few minutes the first time) …"
	$(BIN)/python -m pip install --quiet -e '.[fast]'
	@touch $@

$(VENV)/.film: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[fast,film]'
	@touch $@

$(VENV)/.notebook: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[fast,notebook]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --group lint --group lessons
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

clean:
	rm -rf $(VENV) .venv313 docs/_build docs/reference docs/lessons docs/project
