"""What lies beside stores, as a stranger might send it: no mutation may end in a traceback, a hang or gigabytes.

A failing mutation is replayed by ``python -m tests.faults.fuzz_files FOLDER NUMBER NUMBER+1``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.faults.conftest import size
from tests.faults.nursery import REPOSITORY


@pytest.mark.parametrize("part", range(2))
def test_no_mutation_of_a_side_file_ends_in_a_traceback_a_hang_or_gigabytes(tmp_path, counted, part):
    number = size("mutations of side files") // 2
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz_files", str(tmp_path), str(part * number), str((part + 1) * number)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    at = (tmp_path / "number").read_text() if (tmp_path / "number").exists() else "of none"
    assert ran.returncode == 0, f"mutation {at}: {ran.stderr[-2000:]}"
    *faults, last = [json.loads(line) for line in ran.stdout.splitlines()]
    assert faults == []
    assert last["ran"] == number
    counted("mutations of side files answered or refused", number)
