"""`python -m blur_es.cli`."""

from __future__ import annotations

import sys

from blur_es.cli import main

if __name__ == "__main__":
    sys.exit(main())
