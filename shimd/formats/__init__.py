"""File formats of programs, as far as one needs to know them: by first bytes, headers and outlines."""
