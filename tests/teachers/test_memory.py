"""What a batch frees is kept for the next: on the CPU, small nets wait for page faults more than for arithmetic."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TEACHER = '''
import torch

class Wide(torch.nn.Module):
    """Its activations are 64 MB a batch of four clips, and it computes next to nothing."""
    classes, sample_rate, scores = ["low", "high"], 16_000, "sigmoid"

    def forward(self, waveforms, masks=None):
        wide = torch.zeros(len(waveforms), 4_000_000)
        return (wide[:, :2] + waveforms[:, :2]).sigmoid()

def load():
    return Wide()
'''
FAULTS = """
import resource, torch
from teachers.ensemble import load_ensemble
ensemble = load_ensemble(["python:wide:load"])
waveforms = torch.zeros(4, 16_000)
for _ in range(20):
    ensemble.outputs(waveforms, None, features=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    ensemble.outputs(waveforms, None, features=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that can be told so")
def test_batches_are_computed_in_the_memory_of_those_before(tmp_path):
    (tmp_path / "wide.py").write_text(TEACHER)
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['.', {str(REPOSITORY)!r}]\n{FAULTS}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 20 * 64e6 / 4096 / 10
