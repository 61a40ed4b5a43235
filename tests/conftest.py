"""What every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: ``$LOGITSTORE_SHARED``, or ``../shared`` beside the repository."""
    folder = Path(os.environ.get("LOGITSTORE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no reference data at {folder}; set LOGITSTORE_SHARED to the folder that holds data/")
    return folder
