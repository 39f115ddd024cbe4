"""`phosphene`, and `python -m phosphene`."""

import sys


def main() -> int:
    """The command line; its imports too end by Ctrl-C, or a lack of memory, in a line."""
    try:
        from phosphene.cli import main as run
        from phosphene.cli.process import leave
    except KeyboardInterrupt:
        sys.stderr.write("phosphene: interrupted\n")
        return 130
    except (ImportError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "out of memory"
        sys.stderr.write(f"phosphene: cannot start: {reason}\n")
        return 1
    return leave(run())


if __name__ == "__main__":
    sys.exit(main())
