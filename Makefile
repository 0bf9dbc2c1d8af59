# `make demo` and `make test` set everything up; a second call installs nothing again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: demo bench reproduce-quick results test test-slow test-cluster lint types format lock package clean

demo: $(STAMP)
	$(BIN)/blur-es train experiments/digits.yaml

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# `ray up` and jobs on hosts in network namespaces: as root, with the packages iproute2,
# openssh-server and rsync. About ten minutes.
test-cluster: $(STAMP)
	$(BIN)/python -m pytest -m cluster --numprocesses 2 --dist loadfile

# Writes docs/results/*.json and from them docs/performance.md, docs/scaling.md and docs/backends.md: an hour,
# of which the head's memory over 10,000 generations and the headline take most. Where there is a
# GPU, `python -m benchmarks.gpu` measures it.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.inner_loop
	$(BIN)/python -m benchmarks.accelerator
	$(BIN)/python -m benchmarks.backends
	$(BIN)/python -m benchmarks.head
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.headline

# Every result of the paper in small, without a download: some minutes each.
reproduce-quick: $(STAMP)
	$(BIN)/blur-es reproduce all --quick

# docs/results.md and its pictures, of what `blur-es reproduce` has written by now.
results: $(STAMP)
	$(BIN)/python docs/make_results.py $(wildcard runs/reproduce/*/results.json)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The exact versions that CI and `make` use; the bounds are in pyproject.toml.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --upgrade pip
	$(VENV)-lock/bin/pip install --quiet -e '.[dev]'
	$(VENV)-lock/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf $(VENV)-lock

# The wheel and the source archive, checked, and each tried in an empty environment.
package: $(STAMP)
	rm -rf dist $(VENV)-package
	$(PYTHON) -m venv $(VENV)-package
	$(VENV)-package/bin/pip install --quiet build twine
	$(VENV)-package/bin/python -m build
	$(VENV)-package/bin/twine check --strict dist/*
	for file in dist/*; do \
	    $(PYTHON) -m venv --clear $(VENV)-package && \
	    $(VENV)-package/bin/pip install --quiet --constraint constraints.txt "$$file" && \
	    (cd dist && ../$(VENV)-package/bin/blur-es tasks) || exit 1; \
	done
	rm -rf $(VENV)-package

# A failed installation leaves no stamp, so the next call tries again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("blur_es needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
