# Two commands set everything up on a fresh machine with Python 3.11: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
# uv ignores pip's own settings: hand over the folder of local packages, if there is one.
UV := UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv

.PHONY: install demo test check bench docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m luodi.command.demo

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ty check src

bench: install
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script --quick || exit 1; done

clean:
	rm -rf .venv runs
