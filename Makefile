# Two commands: `make dream` (PHOTO=me.jpg for your own) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTO ?=
SECTIONS ?=
OUT ?= $(if $(PHOTO),$(basename $(PHOTO))-dream.png,dream.png)

.PHONY: dream test check bench clean

dream: $(VENV)/.installed
	$(BIN)/phosphene dream $(if $(PHOTO),"$(PHOTO)",) -o "$(OUT)" --force

test: $(VENV)/.tested
	scripts/test

check: $(VENV)/.tested
	scripts/check

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

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --group lint
	@touch $@

clean:
	rm -rf $(VENV)
