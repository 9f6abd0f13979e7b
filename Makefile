# Each target sets up what it needs; see tools/setup.
PYTHON := .venv/bin/python
TESTS ?= tests
# Of make chaos: for how long, and the first plan's seed; 0 is any.
CHAOS_SECONDS ?= 3600
CHAOS_SEED ?= 0
# Of make fuzz, for each target.
FUZZ_SECONDS ?= 60

.PHONY: demo setup dev test test-kubernetes test-programs test-bare-natives chaos fuzz wasmer-native wasmtime-native componentize-native check lint sanitize proto headers bench soak clean

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

# The wheels of native/ by Debian's own toolchain, on bare machines: half an hour of two processors, for each Debian.
test-bare-natives: setup
	SHIMD_TEST_BARE_NATIVES=1 $(PYTHON) -m pytest tests/e2e/test_bare_natives.py

# Parts of shimd are killed, stopped and starved while apps live; each plan's first line is the command that repeats it.
chaos: setup
	SHIMD_TEST_HUNDRED=1 $(PYTHON) -m pytest tests/e2e/test_hundred.py
	$(PYTHON) -m tests.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED)
	tools/trixie $(PYTHON) -m tests.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED) --containerd debian

# Every target of tests/fuzz, for so long each, with coverage guidance.
fuzz: setup
	$(PYTHON) -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	$(PYTHON) -m tests.fuzz --seconds $(FUZZ_SECONDS)

# The wheels of native/, in .cache/*-native-*/ and .venv.
wasmer-native wasmtime-native componentize-native:
	tools/setup $@

# What needs no root and nothing but .venv, in under a minute: no cargo, and no tests that start shimd's own processes.
check: dev
	@tools/lint python types imports headers shell
	$(PYTHON) -m pytest -q -rfE tests/unit $(addprefix --ignore=tests/unit/, cgroup engines forkserver launcher node test_old_python.py test_other_machines.py test_proto.py)

lint: dev
	@tools/lint

# What is in C, and its tests, with the compiler's own checks.
sanitize: dev
	$(PYTHON) tools/sanitize.py

proto: dev
	$(PYTHON) tools/proto.py

# What is in C has its numbers from Python's tables.
headers: dev
	$(PYTHON) tools/headers.py

bench: setup
	$(PYTHON) -m benchmarks

# Ten thousand tasks beside a thousand idle apps: does anything grow? Written to docs/benchmarks/soak.svg.
soak: setup
	$(PYTHON) -m benchmarks.soak

clean:
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
