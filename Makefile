# Two commands do all the set-up on a fresh machine: `make demo` and `make test`. A second run starts at once.
PYTHON ?= python3
BIN := .venv/bin
# setuptools warns of every editable installation with mapped folders, which is meant here.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: demo test lint types tests slow wheel soak clients

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

# The rest of the long matrices, which `make tests` leaves out.
slow: .venv/test
	$(BIN)/pytest -n 2 --dist worksteal -m slow

# A hundred searches killed at random moments, of every method: minutes, and not part of the tests.
soak: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py 100

# The wheel, in an environment that holds nothing else, from a folder that holds nothing at all (-P: not beside tests/).
wheel: .venv/test
	rm -rf build && mkdir -p build/empty
	$(BIN)/python -m build --wheel --outdir build/wheel . > build/log 2>&1 || (cat build/log; false)
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --disable-pip-version-check build/wheel/*.whl
	cd build/empty && ../clean/bin/python -P ../../tests/wheel_smoke.py
	rm -rf build

# What people plug the networks into, in an environment that sees that of the demo: torch is not installed twice.
# No test may be skipped; docs/clients.json says what passed, when, and with which versions.
clients: .venv-clients/installed
	OMP_NUM_THREADS=1 .venv-clients/bin/python tests/clients/record.py docs/clients.json

.venv-clients/installed: .venv/demo tests/clients/requirements.txt
	$(PYTHON) -m venv --without-pip .venv-clients
	$(BIN)/python tests/clients/see_environment.py .venv-clients
	PYTHONWARNINGS=ignore .venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	touch $@

.venv/pip: pyproject.toml
	@echo "making an environment of its own in .venv"
	$(PYTHON) -m venv .venv
	$(PIP) --quiet --upgrade pip
	touch $@

.venv/demo: .venv/pip
	@echo "installing PyTorch and what else search, training and export need: minutes the first time"
	$(PIP) --editable '.[search,train,export]'
	touch $@

.venv/test: .venv/demo
	@echo "installing what the tests need"
	$(PIP) --editable '.[search,train,export,mm,dev]'
	touch $@
