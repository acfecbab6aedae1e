"""``python -m picwish_watchd`` is the same program as ``picwish-watchd``."""

import sys

from picwish_watchd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
