"""The `blur-es` command.

Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean checkpoint.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m blur_es.cli` puts the current folder first on the module path, where its files
    # would replace modules of Python and of installed packages.
    del sys.path[0]

# NumPy, Numba and JAX read their settings once, when they are imported.
from blur_es.util.environment import use_neutral_settings
from blur_es.util.threads import use_one_thread

use_neutral_settings()
use_one_thread()

from blur_es.cli.main import main

__all__ = ["main"]
