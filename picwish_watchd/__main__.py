"""Run ``picwish-watchd`` as ``python -m picwish_watchd``."""

import sys

from picwish_watchd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
