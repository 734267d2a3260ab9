"""`python -m parbyte`: the same commands as `parbyte`, also under torchrun."""

import sys

from parbyte.cli import main

if __name__ == "__main__":
    sys.exit(main())
