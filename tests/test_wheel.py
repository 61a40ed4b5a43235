"""The wheel: three packages with their data files and nothing else, which run without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from logitstore import __version__

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("logitstore", "students", "teachers")


def run(*command: object, folder: Path | None = None, path: Path | None = None) -> str:
    """What a command prints, run in a folder, with ``path`` the first from which Python imports."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=os.environ | ({} if path is None else {"PYTHONPATH": str(path)}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from a copy, so that nothing that an earlier build left in the checkout gets into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    (file,) = out.iterdir()
    return file


def test_it_holds_the_three_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    files = [file for package in PACKAGES for file in (REPOSITORY / package).rglob("*")]
    code = {file for file in files if file.suffix == ".py"}
    data = {REPOSITORY / package / "py.typed" for package in PACKAGES}
    data |= {REPOSITORY / "logitstore" / name for name in ("audioset.csv", "audioset_ontology.csv")}
    data |= set((REPOSITORY / "logitstore" / "queries").glob("*.sql"))
    for folder in ("pages", "report", "serve/static"):
        data |= {file for file in (REPOSITORY / "logitstore/jobs" / folder).iterdir() if file.is_file()}
    about = f"logitstore-{__version__}.dist-info"
    assert set(zipfile.ZipFile(wheel).namelist()) == {
        *(file.relative_to(REPOSITORY).as_posix() for file in code | data),
        *(f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt")),
        f"{about}/licenses/LICENSE",
        f"{about}/licenses/NOTICE",
    }


def test_installed_elsewhere_it_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, wheel)
    where = f"import {', '.join(PACKAGES)}; print({', '.join(f'{package}.__file__' for package in PACKAGES)})"
    assert run(sys.executable, "-c", where, folder=tmp_path, path=target).split() == [
        str(target / package / "__init__.py") for package in PACKAGES
    ]
    assert __version__ in run(sys.executable, "-m", "logitstore", "--version", folder=tmp_path, path=target)
    assert "inspect" in run(target / "bin" / "logitstore", "--help", folder=tmp_path, path=target)
    classes = "from logitstore.classes import audioset; print(len(audioset()))"
    assert run(sys.executable, "-c", classes, folder=tmp_path, path=target) == "527\n"
