"""The command ``logitstore show``: a clip and its views as text, figure and sound."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from click.testing import CliRunner, Result
from rich.console import Console

from logitstore import open_store
from logitstore.cli.screen import Screen
from logitstore.cli.show import draw, show_command
from logitstore.errors import MissingExtraError, UsageError
from logitstore.jobs import show
from logitstore.jobs.build.job import build
from logitstore.store.reader import Store
from logitstore.views.recipe import BUILT_IN
from tests.small_store import Spec, make_store
from tests.stores import inside, options, write_audio


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``audio`` of 6 clips, one of them broken, and a ``store`` of them with members."""
    folder = tmp_path_factory.mktemp("show")
    write_audio(folder / "audio", 5)
    (folder / "audio" / "broken.wav").write_bytes(b"RIFF not audio")
    with inside(folder):
        build(options(folder, recipe=BUILT_IN["ced"], clip_seconds=1.0, keep_members=True))
    return folder


@pytest.fixture(scope="module")
def heard(root: Path) -> Store:
    return open_store(root / "store", audio_root=root / "audio")


def run(root: Path, *arguments: str, audio: bool = False) -> Result:
    given = ["--audio-root", str(root / "audio")] if audio else []
    return CliRunner().invoke(show_command, [str(root / "store"), *arguments, *given])


def test_a_clip_is_shown_with_what_was_drawn_and_said(root):
    told = run(root, "0")
    assert told.exit_code == 0, told.exception
    clip = open_store(root / "store")[0]
    lines = told.stdout.splitlines()
    assert lines[0] == f"clip 0  {clip.path}"
    assert max(map(len, lines)) <= 80
    for number in clip.views:
        view = clip.view(number)
        for name, text in view.drawn.items():
            assert f"{name} {text}" in told.stdout
        for one, share in zip(view.targets.names[:3], view.targets.probabilities[:3], strict=True):
            assert any(one in line and f" {share:.2f}" in line for line in lines)
        values = " ".join(f"{said[0]:.2f}" for said in view.members.values())
        assert f"({values})" in told.stdout
    assert "--audio-root AUDIO" in told.stderr


def test_what_was_drawn_is_in_seconds_and_hz(heard):
    view = heard[1].view(0)
    mask = view.mask
    assert view.drawn["roll"] == f"{view.draw['roll'] / 16_000:.2f} s"
    assert view.drawn["time_mask"] == f"{mask['time_start']:.2f} to {mask['time_end']:.2f} s"
    assert view.drawn["frequency_mask"] == f"{mask['freq_low']:,.0f} to {mask['freq_high']:,.0f} Hz"
    (row,) = heard.sql("SELECT entropy FROM views WHERE clip = 1 AND view = 0").to_pylist()
    assert view.entropy == pytest.approx(row["entropy"])


def test_a_clip_is_found_by_its_path(root, heard):
    path = heard[2].path
    assert run(root, path).stdout.startswith(f"clip 2  {path}")
    with pytest.raises(UsageError, match=rf"has the path '{Path(path).name.upper()}'; did you mean '{path}'\?"):
        show.find_clip(heard, Path(path).name.upper())
    with pytest.raises(UsageError, match="give a number, or a path as the store has it"):
        show.find_clip(heard, "nothing.wav")
    with pytest.raises(UsageError, match="clip 99 is not in"):
        show.find_clip(heard, "99")


def test_of_a_file_of_several_clips_a_number_is_asked_for(tmp_path):
    write_audio(tmp_path / "audio", 1)
    with inside(tmp_path):
        build(options(tmp_path, clip_seconds=0.3))
    store = open_store(tmp_path / "store")
    with pytest.raises(UsageError, match=r"has 2 clips in .*store; give the number of one: 0 \(0 s\), 1 \(0.3 s\)"):
        show.find_clip(store, store[0].path)


def test_a_failed_clip_says_why(root, heard):
    broken = next(clip.number for clip in heard if clip.failed)
    told = run(root, str(broken))
    assert told.exit_code == 0
    assert f"failed     {heard[broken].failed}" in told.stdout
    refused = run(root, str(broken), "--wav", str(root / "x.wav"), audio=True)
    assert isinstance(refused.exception, UsageError)
    assert "it failed: " in str(refused.exception)


def test_pictures_and_sound_need_the_audio(root, tmp_path):
    for flag, file in (("--png", "x.png"), ("--wav", "x.wav")):
        told = run(root, "0", flag, str(tmp_path / file))
        assert isinstance(told.exception, UsageError)
        assert f"{flag} needs the sound, and a store holds none; give --audio-root DIR" in str(told.exception)
    for arguments, said in (
        (["--view", "7"], "has no view 7; it has views 0 to 2"),
        (["--view", "first"], "--view 'first' is no view; give a number, or 'original'"),
        (["--wav", str(tmp_path / "x.mp3")], "must end in .wav"),
        (["--png", str(tmp_path / "x.jpg")], "must end in .png"),
        (["--wav", str(tmp_path / "none" / "x.wav")], "there is no folder"),
    ):
        told = run(root, "0", *arguments, audio=True)
        assert isinstance(told.exception, UsageError)
        assert said in str(told.exception)
    assert not list(tmp_path.iterdir())


def test_wav_holds_the_very_samples(root, heard, tmp_path):
    told = run(root, "1", "--view", "2", "--wav", str(tmp_path / "view.wav"), audio=True)
    assert f"wrote      {tmp_path / 'view.wav'}" in told.stdout
    samples, rate = soundfile.read(tmp_path / "view.wav", dtype="float32")
    assert (rate, soundfile.info(tmp_path / "view.wav").subtype) == (16_000, "FLOAT")
    np.testing.assert_array_equal(samples, heard[1].view(2).waveform)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["view.wav"]


def test_wav_of_several_views_is_a_file_for_each(root, heard, tmp_path):
    told = json.loads(run(root, "1", "--wav", str(tmp_path / "a.wav"), "--json", audio=True).stdout)
    names = ["a-original.wav", "a-0.wav", "a-1.wav", "a-2.wav"]
    assert told["written"] == [str(tmp_path / name) for name in names]
    for name, wanted in zip(names, [heard[1].waveform, *(heard[1].view(n).waveform for n in range(3))], strict=True):
        np.testing.assert_array_equal(soundfile.read(tmp_path / name, dtype="float32")[0], wanted)


def test_the_figure_draws_masks_where_they_are_and_answers_as_long_as_they_are(heard):
    pytest.importorskip("matplotlib")
    clip = heard[1]
    views = show.chosen(clip, ["original", "0", "2"])
    figure = show.figure(clip, views)
    assert len(figure.axes) == 3 * len(views)
    for row, view in enumerate(views):
        sound, cells, answers = figure.axes[3 * row : 3 * row + 3]
        assert sound.get_xlim() == cells.get_xlim() == (0, 1.0)
        (image,) = cells.get_images()
        assert image.get_array().shape[0] == 96
        patches = {each.get_gid(): each for each in cells.patches}
        boxes = {} if view is None else {box.kind: box for box in view.boxes}
        assert patches.keys() == boxes.keys()
        for kind, box in boxes.items():
            assert patches[kind].get_hatch()
            if kind == "time":
                assert patches[kind].get_x() == pytest.approx(box.start)
                assert patches[kind].get_width() == pytest.approx(box.stop - box.start)
        said = clip.mean if view is None else view.targets
        lengths = [bar.get_width() for bar in answers.patches]
        assert lengths == pytest.approx(said.probabilities[:5].tolist())
        assert [each.get_text() for each in answers.get_yticklabels()] == list(said.names[:5])
        assert len(answers.lines) >= (0 if view is None else len(view.members))
    assert any(boxes)
    with pytest.raises(UsageError, match="at most 40 rows, and 41 views are asked for"):
        show.figure(clip, [None] * 41)


def test_png_is_a_picture(root, tmp_path):
    image = pytest.importorskip("PIL.Image")
    told = run(root, "1", "--view", "0", "--png", str(tmp_path / "view.png"), audio=True)
    assert told.exit_code == 0, told.exception
    with image.open(tmp_path / "view.png") as drawn:
        assert drawn.size[0] == 1440
        assert len(drawn.convert("RGB").getcolors(1 << 24)) > 50


def test_without_matplotlib_it_says_what_to_install(root, heard, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"logitstore\[report\]"):
        show.figure(heard[0], [None])
    assert isinstance(run(root, "0", "--png", str(tmp_path / "x.png"), audio=True).exception, MissingExtraError)


def test_the_document_is_plain_json(root, heard):
    told = json.loads(run(root, "1", "--view", "0", "--json").stdout)
    view = heard[1].view(0)
    (shown,) = told["shown"]
    assert (told["clip"], told["path"], told["failed"], told["written"]) == (1, heard[1].path, None, [])
    assert shown["parameters"] == view.parameters
    assert [each["class"] for each in shown["classes"]] == list(view.targets.names)
    assert list(shown["classes"][0]["members"]) == list(view.members)
    assert {box["kind"] for box in shown["boxes"]} <= {"time", "frequency"}


def test_a_terminal_with_colours_shows_the_log_mel(heard):
    def drawn(**how: object) -> str:
        console = Console(file=io.StringIO(), width=80, soft_wrap=True, **how)  # type: ignore[arg-type]
        screen = Screen(console)
        draw(heard[1], [heard[1].view(0)], screen, asked=True, heard=True)
        screen.print()
        return str(console.file.getvalue())  # type: ignore[attr-defined]

    assert drawn(force_terminal=True, color_system="truecolor").count("▀") == 10 * 72
    assert "▀" not in drawn()


def test_hostile_columns_are_escaped(tmp_path):
    labels = pa.array([f"\x1b[31m{number}" for number in range(37)])
    made = make_store(tmp_path / "store", Spec(), label=labels)
    told = CliRunner().invoke(show_command, [str(made.path), "3"])
    assert "\x1b" not in told.stdout
    assert "\\x1b[31m3" in told.stdout
    many = CliRunner().invoke(
        show_command, [str(make_store(tmp_path / "many", Spec(view_ranges=((0, 20),))).path), "0"]
    )
    assert "… 8 more views; choose with --view N" in many.stdout


def test_the_page_about_looking_runs(root, tmp_path, monkeypatch):
    """docs/look.md: its sessions and its Python, in a folder with a store and its audio."""
    from logitstore.cli.main import cli
    from tests.test_docs import BLOCK, REPOSITORY, sessions

    pytest.importorskip("matplotlib")
    for name in ("store", "audio"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    for command, _ in (ran := sessions("docs/look.md")):
        told = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert (told.exit_code, bool(told.stdout)) == (0, True), (command, told.exception)
    text = (REPOSITORY / "docs" / "look.md").read_text()
    (block,) = (block for language, block in BLOCK.findall(text) if language == "python")
    exec(block, {})
    assert len(ran) == 3
    assert {"view.png", "view-original.wav", "view-0.wav", "view-2.wav"} <= {each.name for each in tmp_path.iterdir()}
