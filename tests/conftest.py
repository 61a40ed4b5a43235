"""What every test shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.stores import inside

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
def own_folder(tmp_path: Path) -> Iterator[Path]:
    """The test runs in a folder of its own, which is where the specs `python:MODULE:…` are imported from, anew."""
    with inside(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models so small that a second thread only waits, and for results that depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
