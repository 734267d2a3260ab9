"""The commands: results on stdout, progress on stderr, exit codes 0, 1, 2, 3 and 130."""

from parbyte.cli.entry import main

__all__ = ["main"]
