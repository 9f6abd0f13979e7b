# Each target sets up what it needs; see tools/setup.
PYTHON := .venv/bin/python
TESTS ?= tests

.PHONY: demo setup dev test test-kubernetes test-programs wasmer-native componentize-native lint proto headers bench clean

demo:
	@tools/setup demo
	@$(PYTHON) tools/demo.py

setup:
	@tools/setup

dev:
	@tools/setup dev

test: setup
	$(PYTHON) tools/test.py $(TESTS)

# A real cluster: its programs are built first, once.
test-kubernetes: setup
	tools/setup kubernetes
	SHIMD_TEST_KUBERNETES=1 $(PYTHON) -m pytest tests/kubernetes

# Programs that nobody here wrote; the largest take minutes to compile.
test-programs: setup
	tools/setup programs
	SHIMD_TEST_PROGRAMS=1 $(PYTHON) -m pytest tests/programs

# The wheels of native/, in .cache/*-native-*/ and .venv.
wasmer-native componentize-native:
	tools/setup $@

lint: dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) tools/headers.py --check
	@! cargo fmt --version >/dev/null 2>&1 || for crate in native/wasmer native/componentize tests/components/rust; do cargo fmt --all --check --manifest-path $$crate/Cargo.toml || exit 1; done

proto: dev
	$(PYTHON) tools/proto.py

# What is in C has its numbers from Python's tables.
headers: dev
	$(PYTHON) tools/headers.py

bench: setup
	$(PYTHON) -m benchmarks

clean:
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
