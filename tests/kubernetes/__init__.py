"""A real cluster on one node, for tests that take longer than those of ``make test``: see :mod:`.cluster`."""
