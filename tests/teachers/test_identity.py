"""What a Python teacher is known by: whatever decides what it says makes another digest, and nothing else does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from logitstore.errors import MismatchError, TeacherError
from logitstore.jobs.build.job import build
from logitstore.jobs.status import status
from logitstore.store.format.manifest import ROOT
from logitstore.store.reader import open_store
from logitstore.training.runs import weights_digest
from teachers.registry import load_teacher
from tests.stores import inside, options, write_audio

TEACHER = """
import torch
import helper
from parts.layers import scale

TABLE = [1.0, 2.0]

class Level(torch.nn.Module):
    classes, sample_rate, scores = ["a", "b"], 16_000, "sigmoid"

    def __init__(self, slope=9.0, name="x"):
        super().__init__()
        self.slope, self.name = slope, name
        self.table = torch.ones(2)
        self.register_buffer("unsaved", torch.ones(1), persistent=False)
        self.rules = {"a": (1, 2), "b": helper.Rule(0.5)}

    def forward(self, waveforms):
        level = self.slope * waveforms.square().mean(dim=1, keepdim=True).sqrt()
        return torch.sigmoid(torch.cat([level, -level], dim=1))

def make(**arguments):
    return Level(**arguments)
"""
HELPER = """
class Rule:
    def __init__(self, least):
        self.least = least
"""


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "code"
    (folder / "parts").mkdir(parents=True)
    (folder / "level.py").write_text(TEACHER)
    (folder / "helper.py").write_text(HELPER)
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "layers.py").write_text("from . import deeper\nscale = 3\n")
    (folder / "parts" / "deeper.py").write_text("")
    (folder / "unused.py").write_text("")
    return folder


def known(folder, spec="python:level:make"):
    with inside(folder):
        teacher = load_teacher(spec)
        return teacher.digest, teacher.contract.not_covered


def replaced(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_a_digest_is_the_same_every_time_and_in_every_folder(own, tmp_path):
    first = known(own)
    assert first[1] == ()
    assert known(own) == first
    shutil.copytree(own, tmp_path / "elsewhere" / "deep")
    assert known(tmp_path / "elsewhere" / "deep") == first
    (own / "unused.py").write_text("x = 1")
    (own / "level.py").write_bytes(TEACHER.replace("\n", "\r\n").encode())
    assert known(own) == first
    shutil.copy(own / "level.py", own / "renamed.py")
    assert known(own, "python:renamed:make") == first


CHANGES = {
    "code": ("level.py", "-level", "2 - level"),
    "a number": ("level.py", "slope=9.0", "slope=8.0"),
    "a text": ("level.py", 'name="x"', 'name="y"'),
    "a plain tensor": ("level.py", "self.table = torch.ones(2)", "self.table = torch.zeros(2)"),
    "a module that it imports": ("helper.py", "self.least = least", "self.least = -least"),
    "a module of a package": ("parts/layers.py", "scale = 3", "scale = 4"),
    "a module that this one imports": ("parts/deeper.py", "", "depth = 1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_a_result_makes_another_digest(own, change):
    before = known(own)[0]
    name, old, new = CHANGES[change]
    replaced(own / name, old, new) if old else (own / name).write_text(new)
    assert known(own)[0] != before


#: Lines in a module whose file stays the same, and what they read is changed beside it.
DATA = {
    "an attribute": "self.values = np.load(HERE / 'data.npy')",
    "a list of tensors": "self.values = [torch.from_numpy(np.load(HERE / 'data.npy'))]",
    "an unsaved buffer": "self.register_buffer('x', torch.from_numpy(np.load(HERE / 'data.npy')), persistent=False)",
    "a saved buffer": "self.register_buffer('values', torch.from_numpy(np.load(HERE / 'data.npy')))",
    "a number": "self.values = float(np.load(HERE / 'data.npy')[0])",
    "an object": "self.values = Held(np.load(HERE / 'data.npy'))",
    "an object with slots": "self.values = Slotted(np.load(HERE / 'data.npy'))",
    "the path of a file": "self.values = HERE / 'data.npy'",
    "a path as text": "self.values = str(HERE / 'data.npy')",
    "a closure": "values = np.load(HERE / 'data.npy'); self.values = lambda: values",
    "a partial function": "self.values = functools.partial(print, np.load(HERE / 'data.npy'))",
    "a module in a list": "self.values = [with_weights()]",
    "the state of a generator": "self.values = np.random.default_rng(int(np.load(HERE / 'data.npy')[0]))",
    "a class": "Held.default = np.load(HERE / 'data.npy')",
    "the top level": "global TOP; TOP = np.load(HERE / 'data.npy')",
    "a part": "self.part = torch.nn.Identity(); self.part.values = float(np.load(HERE / 'data.npy')[0])",
}
READS = """
import functools
from pathlib import Path
import numpy as np
import torch

HERE = Path(__file__).parent
TOP = None

class Held:
    default = None
    def __init__(self, values):
        self.values = values
        self.me = self

class Slotted:
    __slots__ = ("values",)
    def __init__(self, values):
        self.values = values

def with_weights():
    part = torch.nn.Linear(1, 1)
    part.weight.data.fill_(float(np.load(HERE / 'data.npy')[0]))
    part.bias.data.zero_()
    return part

class Reads(torch.nn.Module):
    classes, sample_rate, scores = ["a"], 16_000, "sigmoid"

    def __init__(self):
        super().__init__()
        LINE

    def forward(self, waveforms):
        return torch.zeros(len(waveforms), 1)

make = Reads
"""


@pytest.mark.parametrize("where", DATA)
def test_data_are_told_apart_wherever_they_lie(tmp_path, where):
    (tmp_path / "reads.py").write_text(READS.replace("LINE", DATA[where]))
    found = []
    for value in (1.0, 1.0, 2.0):
        np.save(tmp_path / "data.npy", np.full(3, value))
        found.append(known(tmp_path, "python:reads:make"))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] == ()


def test_two_classes_without_any_data_are_two_teachers(tmp_path):
    classes = READS.replace("LINE", "pass").replace("make = Reads", "class Other(Reads):\n    pass\n")
    (tmp_path / "two.py").write_text(classes)
    assert known(tmp_path, "python:two:Reads")[0] != known(tmp_path, "python:two:Other")[0]


def test_arguments_reach_the_factory_and_the_digest(own):
    plain, steep = known(own)[0], known(own, "python:level:make?slope=12&name=7 kHz")[0]
    assert plain != steep
    with inside(own):
        module = load_teacher("python:level:make?slope=1.5&name=true").module
        assert (module.slope, module.name) == (1.5, True)
    assert known(own, "python:level:make?slope=9.0")[0] != known(own, "python:level:make?slope=9.5")[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("make?slope", "'slope' is no argument; write"),
        ("make?", "'' is no argument; write"),
        ("make?slope=1&slope=2", "each name once"),
        ("make?2x=1", "'2x=1' is no argument"),
        ("make?loud=1", "unexpected keyword argument 'loud'"),
        ("make?slope=1\nx", None),
    ],
)
def test_arguments_that_cannot_be_given(own, spec, message):
    with inside(own):
        if message is None:
            assert load_teacher(f"python:level:{spec}").module.slope == "1 x"
            return
        with pytest.raises(TeacherError, match=message):
            load_teacher(f"python:level:{spec}")


#: What a digest cannot cover, and how that is said.
OPAQUE = {
    "self.client = __import__('socket').socket()": "teacher.client, of type socket.socket",
    "from urllib.request import urlopen": "what it asks through urllib",
    "import transformers": "the library transformers",
    "exec('x = 1')": "what opaque loads by exec",
    "self.session = __import__('duckdb').connect()": "teacher.session, of type .*DuckDBPyConnection",
}


@pytest.mark.parametrize("line", OPAQUE)
def test_what_cannot_be_covered_is_said(tmp_path, line):
    (tmp_path / "opaque.py").write_text(READS.replace("LINE", line))
    _, not_covered = known(tmp_path, "python:opaque:make")
    assert [what for what in not_covered if __import__("re").fullmatch(OPAQUE[line], what)]


def test_a_teacher_may_state_its_digest(tmp_path):
    (tmp_path / "states.py").write_text(READS.replace("LINE", "self.digest, self.client = 'v7', object()"))
    assert known(tmp_path, "python:states:make") == ("v7", ())
    for wrong in ("7", "''", "'a b'", "'\\n'", "'x' * 129"):
        (tmp_path / "states.py").write_text(READS.replace("LINE", f"self.digest = {wrong}"))
        with pytest.raises(TeacherError, match=r"its digest is .*; a text of 1 to 128 visible characters"):
            known(tmp_path, "python:states:make")


def built(own, **changes):
    return build(options(own, **({"teachers": ["python:level:make"], "topk": 2, "recipe": "wave"} | changes)))


def test_a_store_is_not_gone_on_with_by_another_function(own):
    write_audio(own / "audio", 3)
    with inside(own):
        built(own)
        before = open_store(own / "store").manifest.teachers[0].digest
    replaced(own / "helper.py", "self.least = least", "self.least = -least")
    with inside(own):
        after = load_teacher("python:level:make").digest
        message = rf"teachers: stored \[.*\({before[:12]}\)\], asked \[.*\({after[:12]}\)\]"
        with pytest.raises(MismatchError, match=message):
            built(own, views=4)


def test_status_and_manifest_say_what_is_not_covered(own):
    write_audio(own / "audio", 3)
    replaced(own / "level.py", "import helper", "import helper, socket")
    with inside(own):
        built(own)
    what = "what it asks through socket"
    assert open_store(own / "store").manifest.teachers[0].contract == {"not_covered": [what]}
    found = status(str(own / "store"))
    assert found.to_dict()["not_covered"] == [{"teacher": "python:level:make", "what": what}]
    assert f"the digest of python:level:make does not cover {what}" in found.render()
    with inside(own):
        assert built(own).made_views == 0


def test_a_store_of_an_earlier_release_is_gone_on_with_and_that_is_said(own):
    """Its digest is of the weights alone; so are those of all teachers without weights, and that is said."""
    write_audio(own / "audio", 3)
    notes: list[str] = []
    with inside(own):
        built(own)
        teacher = load_teacher("python:level:make")
        earlier = weights_digest(teacher.module.state_dict())
        shutil.rmtree(own / "store" / "commits")
        root = own / "store" / ROOT
        root.write_text(root.read_text().replace(teacher.digest, earlier))
        from logitstore.jobs.build.job import Progress

        asked = options(own, teachers=["python:level:make"], topk=2)
        build(asked, Progress(note=notes.append))
    assert [note for note in notes if f"by the digest {earlier[:12]}, which an earlier release made" in note]
    assert open_store(own / "store").manifest.teachers[0].digest == earlier
    assert open_store(own / "store").views == 3


def test_a_library_module_is_covered_itself():
    """A teacher that lies in an installed package: its code, not all that is installed beside it."""
    from teachers.identity import Sources

    sources = Sources("msgspec.json")
    assert "msgspec.json" in sources.texts
    assert all(name.partition(".")[0] == "msgspec" for name in sources.texts)
    assert torch.__name__ not in sources.texts
