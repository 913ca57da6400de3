# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. A second run starts at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types tests wheel

demo: .venv/demo
	$(BIN)/dots-zoo demo --out runs/demo

test: lint types tests wheel

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

tests: .venv/test
	$(BIN)/pytest -n 2 --dist worksteal

# The wheel, in an environment that holds nothing else, from a folder that holds nothing at all.
wheel: .venv/test
	rm -rf build/wheel build/clean build/empty
	$(BIN)/python -m build --wheel --outdir build/wheel . > build-wheel.log 2>&1 || (cat build-wheel.log; false)
	rm -f build-wheel.log
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --disable-pip-version-check build/wheel/*.whl
	mkdir build/empty
	cd build/empty && ../clean/bin/python ../../tests/wheel_smoke.py
	rm -rf build/clean

.venv/pip: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/demo: .venv/pip
	$(BIN)/python -m pip install --quiet --editable '.[search,train,export]'
	touch $@

.venv/test: .venv/demo
	$(BIN)/python -m pip install --quiet --editable '.[search,train,export,dev]'
	touch $@
