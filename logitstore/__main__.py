"""``python -m logitstore``: the program, wherever the package is found; ``torchrun … -m logitstore train-student``."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts the current folder first; a file soxr.py of a data set in it is not the package of that name.
if sys.path[0] in ("", str(Path.cwd())) and Path(__file__).parents[1] != Path.cwd():
    del sys.path[0]

from logitstore.cli.main import main

main()
