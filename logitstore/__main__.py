"""``python -m logitstore``: the program, wherever the package is found; ``torchrun … -m logitstore train-student``."""

from __future__ import annotations

from logitstore.cli.main import main

main()
