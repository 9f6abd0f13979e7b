"""The fork server: a warm process per engine, the parent of its workers (``main``)."""

from shimd import release

release.mark()  # before the rest of it is loaded
