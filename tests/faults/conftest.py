"""How much the fault tests break: a little by default, much under ``LOGITSTORE_FAULTS=full`` (``make faults``).

What a test counts (kills survived, changes found, …) is printed at the end, summed over the tests that passed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.faults.nursery import Faults, Left, Nursery
from tests.stores import TONE_TEACHER, contents, write_audio

FULL = os.environ.get("LOGITSTORE_FAULTS", "") == "full"
_COUNTED = "counted "

#: What is done of each, by default and at full size.
SIZES = {
    "kills at random times": (5, 50),
    "kills at random steps": (8, 50),
    "interrupts": (3, 20),
    "terminations": (3, 20),
    "full disks": (3, 40),
    "small disks": (1, 10),
    "teacher faults": (1, 5),
    "clips deleted": (1, 10),
    "changed bytes": (60, 1000),
    "truncations": (10, 100),
    "deletions": (10, 100),
    "rounds of four builders": (1, 10),
    "examples": (25, 1000),
    "mutations of stores": (800, 6000),
    "mutations of side files": (1800, 12_000),
    "damaged audio files": (160, 12_000),
}

hypothesis.settings.register_profile(
    "faults",
    derandomize=True,
    database=None,
    deadline=timedelta(seconds=20),
    suppress_health_check=list(hypothesis.HealthCheck),
    max_examples=SIZES["examples"][FULL],
)


def size(what: str) -> int:
    """How many of something a test does."""
    return SIZES[what][FULL]


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``counted(what, number=1)`` adds to what is printed at the end."""

    def add(what: str, number: int = 1) -> None:
        request.node.user_properties.append((_COUNTED + what, number))

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts of the tests that passed; under xdist too, for reports carry them."""
    totals: dict[str, int] = {}
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", [])}
    ends = [report for report in terminalreporter.stats.get("", []) if report.when == "teardown"]
    for report in [report for report in ends if report.nodeid in passed]:
        for name, number in report.user_properties:
            if name.startswith(_COUNTED):
                totals[name.removeprefix(_COUNTED)] = totals.get(name.removeprefix(_COUNTED), 0) + number
    if totals:
        terminalreporter.section("faults survived and found")
        for name, number in totals.items():
            terminalreporter.write_line(f"{number:>8,}  {name}")


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """The warm process that forks builds."""
    with Nursery(tmp_path_factory.mktemp("children")) as warm:
        yield warm


MIXED = """
- {op: roll}
- {op: gain}
- {op: mixup, probability: 0.7}
- {op: noise}
- {op: time_mask, max_seconds: 0.5}
- {op: frequency_mask}
"""


@dataclass(frozen=True)
class World:
    """A folder with audio, teachers and a recipe; the bytes that an undisturbed build of it makes; and its steps."""

    root: Path
    nursery: Nursery
    arguments: list[str]
    undisturbed: dict[str, bytes]
    steps: int

    @property
    def store(self) -> Path:
        """Where builds of this world go."""
        return self.root / "store"

    def start(self, faults: Faults | None = None, *more: str) -> Any:
        """A build in a process of its own."""
        return self.nursery.start(self.root, [*self.arguments, *more], faults)

    def build(self, faults: Faults | None = None, *more: str) -> Left:
        """A build in a process of its own, to its end."""
        return self.start(faults, *more).wait()

    def finish(self) -> None:
        """Resume the build; the store must then be the undisturbed one, byte for byte. It is removed."""
        left = self.build()
        assert left.status == 0, left.out
        self.check_finished()
        shutil.rmtree(self.store)

    def check_finished(self, scratch: bool = False) -> None:
        """The store is the undisturbed one, byte for byte; scratch beside it is allowed where asked."""
        found = contents(self.store)
        if scratch:
            found = {name: content for name, content in found.items() if not name.startswith("tmp/")}
        assert sorted(found) == sorted(self.undisturbed)
        assert [name for name in found if found[name] != self.undisturbed[name]] == []

    def check_intact(self) -> int:
        """What is in place has the bytes that it shall have, and every committed block is whole; their number."""
        found = {name: content for name, content in contents(self.store).items() if name.split("/")[0] not in WORKING}
        assert sorted(set(found) - set(self.undisturbed)) == []
        assert [name for name in found if found[name] != self.undisturbed[name]] == []
        blocks = [Path(name).stem for name in found if name.startswith("commits/")]
        for block in blocks:
            whole = [name for name in self.undisturbed if name.startswith(f"blocks/{block}/")]
            assert whole
            assert [name for name in whole if name not in found] == []
        return len(blocks)


WORKING = ("tmp", "claims")


def make_world(root: Path, nursery: Nursery, clips: int, *more: str) -> World:
    """A folder with audio, one clip of which cannot be read, and the undisturbed build of it."""
    root.mkdir(exist_ok=True)
    (root / "tones.py").write_text(TONE_TEACHER)
    (root / "mixed.yaml").write_text(MIXED)
    write_audio(root / "audio", clips)
    (root / "audio" / "text.wav").write_text("no audio")
    arguments = ["build", "audio", "--out", "store", "--teacher", "python:tones:plain", "--teacher",
                 "python:tones:steep", "--recipe", "mixed.yaml", "--views", "2", "--quality", "0.05", "--clip-seconds",
                 "2", "--batch-size", "4", "--workers", "2", "--device", "cpu", "--keep-members", *more]  # fmt: skip
    left = nursery.run(root, arguments, Faults(count=str(root / "steps")))
    assert left.status == 0, left.out
    undisturbed = contents(root / "store")
    shutil.rmtree(root / "store")
    return World(root, nursery, arguments, undisturbed, int((root / "steps").read_text()))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> World:
    """Thirteen clips in seven blocks. Whoever uses it removes the store that it built."""
    return make_world(tmp_path_factory.mktemp("world"), nursery, 12, "--shard-clips", "2")


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """No store of another test is left in the world."""
    if "world" in request.fixturenames:
        shutil.rmtree(request.getfixturevalue("world").store, ignore_errors=True)
    yield
    sys.modules.pop("tones", None)
