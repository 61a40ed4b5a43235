"""What every test shares."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)
# a shell's background job ignores SIGINT, and so would the programs that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: ``$LOGITSTORE_SHARED``, or ``../shared`` beside the repository."""
    folder = Path(os.environ.get("LOGITSTORE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no reference data at {folder}; set LOGITSTORE_SHARED to the folder that holds data/")
    return folder


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test runs in a folder of its own, which is where the specs `python:tones:…` are imported from, anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("tones", None)
    yield tmp_path
    sys.modules.pop("tones", None)
