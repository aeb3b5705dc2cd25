# Everything runs inside .venv, made on first use with the Python named by PYTHON.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKDIR ?= results/infinite_compute

.PHONY: demo tiny test test-full test-system chaos lint wheel clean

demo: $(STAMP)  ## the first half of the infinite-compute study, about seven minutes on two cores
	$(BIN)/scaling-jax study infinite_compute --scale=tiny --until=ensembles --workdir=$(WORKDIR)

tiny: $(STAMP)  ## all of it: more data budgets and the joint limit
	$(BIN)/scaling-jax study infinite_compute --scale=tiny --workdir=$(WORKDIR)

test: $(STAMP) lint  ## the fast suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not full and not system"

test-full: $(STAMP)  ## every smoke study, kills and resumes, planted worlds, the built wheel
	$(BIN)/python -m pytest -q -m "full"

test-system: $(STAMP)  ## what needs other programs, such as Chromium
	$(BIN)/python -m pytest -q -m "system"

chaos: $(STAMP)  ## fifty kills, flipped bytes, full disks: a table, red on any difference
	$(BIN)/python -m tests.chaos

lint: $(STAMP)
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy

wheel: $(STAMP)
	$(BIN)/python -m build --wheel

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"scaling_jax needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info results
