"""Programs that nobody here wrote, by name from PyPI, npm, crates and Go modules, under containerd and on each engine.

``programs.toml`` says what each is, what it is asked to do, and what must come of it; how that is known, too: an
expectation is a result that was checked by other means than shimd. ``python -m tests.programs`` writes
``docs/programs.md``.
"""
