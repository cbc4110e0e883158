# Two commands for a fresh machine: `make demo` and `make test`. Both create the environment first.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-full test-aarch64 test-android sample-android test-ios sample-ios test-runtimes bench-step lint clean

demo: $(READY)
	$(BIN)/clue-mobile demo --out demo_out

test: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not full"

test-full: $(READY)
	$(BIN)/python -m pytest -n 2

# the Pi's wheels on an emulated Cortex-A76; the emulator and the wheels are fetched into .cache/aarch64 once
test-aarch64: $(READY)
	PIP="$(BIN)/python -m pip" tests/aarch64/fetch.sh
	$(BIN)/python -m pytest tests/aarch64 -s

# the Kotlin runtime on the JVM, and the compile and assembly checks of what needs Android; sets up its own tools
test-android: $(READY)
	tests/android/run.sh $(BIN)/python

# the bundle and images that ship with the Android demo app, into android_demo/sample
sample-android: $(READY)
	$(BIN)/python tests/android/make_sample.py

# the Swift package on Linux; its toolchain goes to .cache/swift once (root, mmdebstrap)
test-ios: $(READY)
	BIN=$(BIN) tests/ios_demo/test.sh

# the bundle and the examples that the iOS demo app carries
sample-ios: $(READY)
	$(BIN)/python ios_demo/ClueDemo/sample.py

# one request on all three runtimes, after the two above
test-runtimes: $(READY)
	tests/runtimes/run.sh $(BIN)/python

# the training step on every peer; environments and files of the peers go to CLUE_STEP_CACHE
bench-step: $(READY)
	$(BIN)/python benchmarks/step/environments.py
	$(BIN)/python benchmarks/step/step.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo_out build *.egg-info
