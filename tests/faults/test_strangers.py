"""Models, tables and folders from strangers: nothing of them is run, followed, or believed about its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from logitstore import open_store
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import AudioError, RunError, SourceError, TeacherError
from logitstore.jobs.export import export_ced, export_parquet
from logitstore.jobs.imports.ced_files import CedFiles
from logitstore.models.ced import Ced
from logitstore.models.registry import build
from logitstore.training.checkpoints import DamagedCheckpoint, decode, encode
from logitstore.training.runs import load_run, save_run, weights_digest
from logitstore.views.recipe import load_recipe
from teachers.registry import load_teacher
from tests.small_store import Spec, make_store

REPOSITORY = Path(__file__).parents[2]


# Code that lies beside what was asked for


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody's, with modules that leave a trace where they are run, and a teacher."""
    folder = tmp_path / "elsewhere"
    (folder / "numcodecs").mkdir(parents=True)
    trace = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + ' ')\n"
    for name in ("soxr.py", "zarr.py", "yaml.py", "numcodecs/__init__.py", "h5py_plugin.py", "tensorboard.py"):
        (folder / name).write_text(trace)
    (folder / "neighbour.py").write_text("answer = 42\n")
    (folder / "mine.py").write_text(
        "import neighbour\n\ndef make():\n    import late\n    return neighbour.answer + late.more\n"
    )
    (folder / "late.py").write_text("more = 0\n")
    return folder


def run_python(code: str, cwd: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *flags, *(["-c", textwrap.dedent(code)] if code else [])]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_the_current_folder_is_asked_last_and_for_a_users_own_modules_alone(elsewhere: Path, tmp_path: Path) -> None:
    ran = run_python(
        """
        import sys
        sys.path.remove("")  # as a console script starts
        from logitstore.errors import TeacherError
        from logitstore.plugins import own_factory
        factory = own_factory("python:mine:make", whose="teacher", error=TeacherError)
        print(factory())
        import soxr, zarr, yaml, numcodecs
        for name in ("tensorboard_plugin_of_nobody", "h5py_plugin", "late_of_nobody"):
            try:
                __import__(name)
            except ImportError:
                print("not found")
        """,
        elsewhere,
    )
    assert ran.stdout.split("\n")[:4] == ["42", "not found", "not found", "not found"], ran.stderr
    assert not (tmp_path / "ran").exists()


def test_run_as_a_module_the_current_folder_does_not_come_first(elsewhere: Path, tmp_path: Path) -> None:
    ran = run_python("", elsewhere, "-m", "logitstore", "tag", "-h")
    assert ran.returncode == 0, ran.stderr
    ran = run_python("", elsewhere, "-m", "logitstore", "tag", "--teacher", "python:mine:make", "x.wav")
    assert "gave int; it must give a torch.nn.Module" in ran.stderr
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def _small_ast(folder: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="the extra `hf` is not installed")
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_length=128, num_labels=2
    )
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=128).save_pretrained(folder)


def _change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _pickled(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a config of its own": (
        lambda folder: _change(folder / "config.json", model_type="own", auto_map={"AutoConfig": "own.C"}),
        "brings code of its own",
    ),
    "a model of its own": (
        lambda folder: _change(
            folder / "config.json", model_type="own", auto_map={"AutoModelForAudioClassification": "own.M"}
        ),
        "brings code of its own",
    ),
    "a feature extractor of its own": (
        lambda folder: _change(
            folder / "preprocessor_config.json", feature_extractor_type="E", auto_map={"AutoFeatureExtractor": "own.E"}
        ),
        "brings code of its own",
    ),
    "pickled objects": (lambda folder: _pickled(folder, {"a": _Evil(), "b": torch.zeros(9000)}), "can be loaded"),
    "a pickle that is none": (
        lambda folder: (_pickled(folder, {}), (folder / "pytorch_model.bin").write_bytes(b"\x80\x04" + bytes(40_000))),
        "can be loaded",
    ),
    "damaged weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors" * 4000),
        "can be loaded",
    ),
    "weights cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "can be loaded",
    ),
    "quantised by another library": (
        lambda folder: _change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "its weights are quantised",
    ),
    "a config that is none": (lambda folder: (folder / "config.json").write_text("[]"), "names no model_type"),
    "numbers that are text": (
        lambda folder: _change(folder / "config.json", hidden_size="many"),
        "can be loaded",
    ),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_of_hf_never_runs_code_and_never_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    _small_ast(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    change, message = FOLDERS[what]
    change(tmp_path / "model")
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher("hf:model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


# Sizes


def _ced_state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in Ced(5, dim=32, depth=1, heads=1).state_dict().items()}


ONE = torch.zeros(1)
CLAIMS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "a tensor more, stretched": ({"more": ONE.half().expand(10**13)}, "claims more than are there"),
    "a width, stretched": ({"time_pos_embed": ONE.expand(1, 12_000, 1, 63)}, "claims more than are there"),
    "a hidden layer, stretched": (
        {"blocks.0.mlp.fc1.weight": ONE.expand(10_000_000, 32)},
        "claims more than are there",
    ),
    "positions, stretched": ({"time_pos_embed": ONE.expand(1, 32, 1, 10**9)}, "claims more than are there"),
    "bytes that a hundred names share": (
        dict(zip([f"more.{n}" for n in range(100)], [torch.zeros(30_000)] * 100, strict=True)),
        "claims more than are there",
    ),
    "a meta tensor": ({"more": torch.empty(10**9, device="meta")}, "is not a plain one|cannot|not a file"),
    "a head without dimensions": ({"outputlayer.1.weight": torch.tensor(1.0)}, "has 2 dimensions in one"),
    "a norm without dimensions": ({"init_bn.1.weight": torch.tensor(1.0)}, "has 1 dimensions in one"),
    "an mlp without dimensions": ({"blocks.0.mlp.fc1.weight": torch.tensor(1.0)}, "has 2 dimensions in one"),
    "positions without dimensions": ({"time_pos_embed": torch.tensor(1.0)}, "has 4 dimensions in one"),
    "a wide hidden layer alone": ({"blocks.0.mlp.fc1.weight": torch.zeros(20_000, 1)}, "tensors differ"),
    "a wide embedding alone": ({"time_pos_embed": torch.zeros(1, 65_536, 1, 1)}, "tensors differ"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_checkpoint_is_held_against_its_bytes(tmp_path: Path, what: str) -> None:
    more, message = CLAIMS[what]
    torch.save(_ced_state() | more, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher(f"ced:{tmp_path / 'x.pt'}?heads=1")
    assert "\n" not in str(caught.value)


def test_a_deflated_checkpoint_is_refused(tmp_path: Path) -> None:
    import zipfile

    torch.save(_ced_state(), tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as whole,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in whole.infolist():
            deflated.writestr(entry.filename, whole.read(entry))
    with pytest.raises(TeacherError, match="its entries are compressed"):
        load_teacher(f"ced:{tmp_path / 'y.pt'}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = build("cnn4", 3, width=4)
    save_run(tmp_path / "run", "cnn4", {"width": 4}, ["a", "b", "c"], "sigmoid", 16000, model)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_args": {"width": 10**6}}, "tensors differ"),
        ({"model_args": {"width": "4"}}, "width"),
        ({"model_args": {"width": [4]}}, "width"),
        ({"model_args": {"width": 10**30}}, "not readable JSON"),
        ({"model": "ced-base", "model_args": {"depth": 3000, "dim": 10**5}}, "tensors differ|heads"),
        ({"model": "ced-tiny", "model_args": {"frames": 10**12}}, "tensors differ|model_args"),
        ({"classes": [str(n) for n in range(10**5)]}, "tensors differ"),
        ({"classes": [{}, 1, None]}, "is not a name"),
        ({"classes": ["a", "a", "b"]}, "twice"),
        ({"scores": "logits"}, "score kind"),
        ({"sample_rate": True}, "sample_rate|Hz"),
        ({"sample_rate": 10**12}, "Hz"),
        ({"training": []}, "is damaged"),
        ({"training": {"store": {"clip_seconds": "long"}}}, "clip_seconds"),
        ({"training": {"options": {"clip_seconds": -1}}}, "clip_seconds"),
    ],
)
def test_a_run_folder_is_held_against_its_weights(run: Path, changes: dict[str, Any], message: str) -> None:
    _change(run / "run.json", **changes)
    with pytest.raises((RunError, TeacherError), match=message) as caught:
        load_teacher(str(run))
    assert "\n" not in str(caught.value)


def test_run_json_nested_deeply_is_one_line(run: Path) -> None:
    (run / "run.json").write_text("[" * 200_000)
    with pytest.raises(RunError, match="not readable JSON"):
        load_run(run)


def test_weights_of_another_kind_are_refused(run: Path) -> None:
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name].reshape(-1)
    safetensors.torch.save_file(tensors, run / "model.safetensors")
    _change(run / "run.json", digest=weights_digest(tensors))
    with pytest.raises(RunError, match="1 tensors differ, the first is"):
        load_run(run)


@pytest.mark.parametrize("values", [[], 3, {"weights": "x"}, {"weights": [-1]}, {"weights": [True]}])
def test_a_checkpoint_of_another_program_is_passed_over(values: Any) -> None:
    with pytest.raises(DamagedCheckpoint, match="does not say what it is of"):
        decode(encode(values, {}))


def test_a_checkpoint_that_holds_objects_is_passed_over() -> None:
    with pytest.raises(DamagedCheckpoint, match="not one of ours: UnpicklingError"):
        decode(encode({}, {"a": _Evil()}))


# HDF5 whose data lie elsewhere


h5py: Any = pytest.importorskip("h5py", reason="the extra `ced` is not installed")


def _external(file: Any, name: str, private: Path, dtype: Any = np.int16) -> None:
    file.create_dataset(name, (16_000,), dtype, external=[(str(private), 0, 64_000)])


def _virtual(file: Any, name: str, private: Path, dtype: Any = np.int16) -> None:
    layout = h5py.VirtualLayout((16_000,), dtype)
    layout[:] = h5py.VirtualSource(str(private.with_suffix(".h5")), "x", (16_000,))
    file.create_virtual_dataset(name, layout)


def _endless(file: Any, name: str, private: Path, dtype: Any = np.int16) -> None:
    file.create_dataset(name, (10**15,), dtype, chunks=(10**6,))


ELSEWHERE = {
    "external storage": (_external, "has its data in another file"),
    "a view": (_virtual, "is a view of other files"),
    "a claim": (_endless, "claims 2,000,000,000,000,000 bytes, of which 0 are there"),
}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    place = tmp_path / "private.bin"
    place.write_bytes(bytes(range(64)) * 1000)
    with h5py.File(tmp_path / "private.h5", "w") as file:
        file["x"] = np.ones(16_000, np.int16)
    return place


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_hdf5_audio_that_lies_elsewhere_is_a_failure_of_that_clip(tmp_path: Path, private: Path, kind: str) -> None:
    fill, message = ELSEWHERE[kind]
    with h5py.File(tmp_path / "audio.h5", "w") as file:
        fill(file, "clip.wav", private)
        file["good.wav"] = np.ones(16_000, np.int16)
    source = open_source(str(tmp_path / "audio.h5"))
    table = scan(source, clip_seconds=1)
    assert dict(zip(table["path"].to_pylist(), table["length"].to_pylist(), strict=True)) == {
        "audio.h5/clip.wav": 0,
        "audio.h5/good.wav": 16_000,
    }
    with pytest.raises(AudioError, match=message):
        source.read("audio.h5/clip.wav")


@pytest.mark.parametrize("link", ["external", "soft"])
def test_hdf5_links_are_not_followed(tmp_path: Path, private: Path, link: str) -> None:
    with h5py.File(tmp_path / "audio.h5", "w") as file:
        file["good.wav"] = np.ones(16_000, np.int16)
        target = h5py.ExternalLink(str(private.with_suffix(".h5")), "/") if link == "external" else h5py.SoftLink("/")
        file["group"] = target
    source = open_source(str(tmp_path / "audio.h5"))
    assert scan(source, clip_seconds=1)["path"].to_pylist() == ["audio.h5/good.wav"]
    with pytest.raises(AudioError, match="is a link to somewhere else"):
        source.read("audio.h5/group/x")


def test_encoded_hdf5_audio_that_lies_elsewhere_is_refused(tmp_path: Path, private: Path) -> None:
    with h5py.File(tmp_path / "audio.h5", "w") as file:
        file.create_dataset("audio_name", (100,), "S8", external=[(str(private), 0, 800)])
        file.create_dataset("mp3", (100,), h5py.vlen_dtype(np.uint8))
    with pytest.raises(SourceError, match=r"'audio_name' has its data in another file"):
        open_source(str(tmp_path / "audio.h5")).listing()


@pytest.mark.parametrize("name", ["topk_values", "topk_indexes", "seeds"])
@pytest.mark.parametrize("kind", ["external storage", "a view"])
def test_ceds_files_that_lie_elsewhere_are_refused(tmp_path: Path, private: Path, kind: str, name: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "ced").mkdir()
    with h5py.File(tmp_path / "ced/logits_ep1_0.h5", "w") as file:
        for each, shape, dtype in (
            ("topk_values", (2, 2), np.float16), ("topk_indexes", (2, 2), np.int16), ("seeds", (2,), np.int32),
        ):  # fmt: skip
            if each == name:
                ELSEWHERE[kind][0](file, each, private, dtype)
            else:
                file[each] = np.zeros(shape, dtype)
    pq.write_table(
        pa.table({"filename": ["a", "b"], "start": [0.0, 0.0], "end": [1.0, 1.0]}),
        tmp_path / "ced/logits_ep1_0.parquet",
    )
    with pytest.raises(SourceError, match=f"logits_ep1_0.h5: the HDF5 data set '{name}'"):
        CedFiles(tmp_path / "ced", 10.0)


# What an export did not make


@pytest.mark.parametrize("export", [export_parquet, export_ced])
@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_an_export_touches_nothing_that_it_did_not_make(tmp_path: Path, export: Any, what: str) -> None:
    made = make_store(tmp_path / "store", Spec(clips=4, failed=(), recipe=load_recipe("none")))
    out, beside = tmp_path / "out", tmp_path / "out.partial"
    mine = {"folder": beside / "thesis", "file": beside, "link": tmp_path / "mine" / "thesis"}[what]
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("precious")
    if what == "link":
        beside.symlink_to(mine.parent)
    export(open_store(made.path), out)
    assert out.exists()
    assert mine.read_text() == "precious"
    left = {path.name for path in tmp_path.iterdir()} - {"store", "out", "out.partial", "mine"}
    assert left == set()
