"""shimd: WebAssembly apps under containerd, one supervisor, one worker process per app."""

import sys

__version__ = "0.1.0"

# One sentence from wherever one comes in: setup.py, ``python -m``, a script. In words that old interpreters know, too.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("shimd needs Python 3.11 or later; this is %s (%s)" % (sys.version.split()[0], sys.executable))  # noqa: UP031
