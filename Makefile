# Every target installs what is missing by itself (lab/setup.py) and is quick the second time.

PYTHON := .venv/bin/python
CHECKED := eva hypervisor broker provider cmdlets oidc web lab benchmarks tests
TYPED := eva hypervisor broker provider cmdlets oidc web lab

.PHONY: help demo test test-faults test-azure bench screenshots check setup setup-bench web clean

help:
	@echo "make demo         the whole story on a real guest; at a terminal it ends in the guest's console"
	@echo "make test         all tests but the long ones"
	@echo "make test-faults  the long fault tests"
	@echo "make test-azure   the whole flow by Azure's own command line, which it installs (730 MB)"
	@echo "make bench        benchmarks against other relays"
	@echo "make screenshots  the pictures of the pages, in docs/pictures"
	@echo "make check        format, lint, types, import borders"
	@echo "make web          brings what the pages are built on, by npm: before a wheel is built"
	@echo "make clean        remove .venv and all that was built"

setup:
	@python3 lab/setup.py test

web:
	@python3 lab/setup.py web

setup-bench:
	@python3 lab/setup.py bench test

demo: setup
	@$(PYTHON) -m lab.demo

test: setup
	$(PYTHON) -m pytest -q --durations=10 -m "not faults and not azure" -n 4 --dist loadfile --no-loadscope-reorder

test-faults: setup
	$(PYTHON) -m pytest -q --durations=10 -m faults --timeout=3600

test-azure:
	@python3 lab/setup.py azure test
	$(PYTHON) -m pytest -q -m azure tests/azure

bench: setup-bench
	$(PYTHON) -m benchmarks

screenshots: setup
	$(PYTHON) -m tests.screenshots

check: setup
	$(PYTHON) -m ruff format --check $(CHECKED)
	$(PYTHON) -m ruff check $(CHECKED)
	$(PYTHON) -m mypy --strict $(TYPED)
	$(PYTHON) -m pytest -q tests/test_imports.py

clean:
	rm -rf web/vendor .venv .lab .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
