"""``shimd``: the program's entry point.

The daemon is started by the same program and lives for months: it must not carry what commands need (click alone would
be a tenth of it), so ``shimd serve`` goes straight to the daemon. Commands import what they need when they run.
"""

import sys


def main() -> int:
    if sys.argv[1:] == ["serve"]:
        from shimd import release

        release.mark()  # before the rest is loaded
        from shimd.supervisor.serve import main as serve

        return serve()
    from shimd.cli.commands import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
