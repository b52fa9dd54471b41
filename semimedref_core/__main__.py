"""``semimedref`` and ``python -m semimedref_core``."""

import sys

from semimedref_core.commands.parser import main

if __name__ == "__main__":
    sys.exit(main())
