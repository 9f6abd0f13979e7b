"""The fork server: a warm process per engine, the parent of its workers (``main``)."""
