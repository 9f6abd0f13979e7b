# Each target sets up what it needs; see tools/setup.
PYTHON := .venv/bin/python
TESTS ?= tests

.PHONY: demo setup test test-kubernetes wasmer-native lint proto bench clean

demo:
	@tools/setup demo
	@$(PYTHON) tools/demo.py

setup:
	tools/setup

test: setup
	$(PYTHON) -m pytest $(TESTS)

# A real cluster: its programs are built first, once.
test-kubernetes: setup
	tools/setup kubernetes
	SHIMD_TEST_KUBERNETES=1 $(PYTHON) -m pytest tests/kubernetes

# The wheel of native/wasmer, in .cache/wasmer-native-*/ and .venv.
wasmer-native:
	tools/setup wasmer-native

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	@! cargo fmt --version >/dev/null 2>&1 || cargo fmt --check --manifest-path native/wasmer/Cargo.toml

proto: setup
	$(PYTHON) tools/proto.py

bench: setup
	$(PYTHON) -m benchmarks

clean:
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
