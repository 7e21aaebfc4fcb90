# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN = .venv/bin

demo: .venv/ready  ## which loss embeds 5,000 real digits best, then from pictures to search: an index and a map
	$(BIN)/nearkin study toolkit --demo --jobs 2 --out out/demo $(DEMO)
	$(BIN)/python examples/demo.py out/demo

test: .venv/ready  ## every test, by three workers of one thread each (a fifth of the time they wait for processes)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal

lint: .venv/ready  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: .venv/ready  ## the documentation site, out/docs/html/index.html, and as one zip beside it
	$(BIN)/python docs/site/build.py out/docs

dist: .venv/ready  ## wheel and sdist, installed with each extra alone in clean environments
	$(BIN)/python docs/receipts/dist.py out/dist

newcomer:  ## README's way from a clone to a search, timed, and its receipt in docs/receipts
	$(PYTHON) docs/receipts/newcomer.py

bench: .venv/ready  ## speed and memory beside our peers; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks $(TOPICS)

LOCKED_INSTALL = --require-hashes -r requirements.lock && \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .

campaign: .venv/ready  ## long forms of what the tests take slices of; writes docs/receipts/DATE.json
	nice -n 10 $(BIN)/python tests/campaign.py $(CAMPAIGN)

.venv/ready: pyproject.toml constraints.txt  ## LOCKED=1: the files of requirements.lock, by hash
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Nearkin was tried with Python 3.11 alone, this is " + sys.version.split()[0] + ": try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile \
		$(if $(LOCKED),$(LOCKED_INSTALL),-c constraints.txt -e '.[dev]')
	touch $@

.PHONY: demo test lint bench docs dist newcomer campaign
