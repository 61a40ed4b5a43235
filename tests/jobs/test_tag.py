"""Tagging: windows, what is heard in them, files that cannot be read, and what the command prints."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from logitstore.cli.tag import clock, render, tag_command
from logitstore.errors import TeacherError, UsageError
from logitstore.jobs import tag as job
from logitstore.jobs.tag import Tagged, TagOptions, Window, audio_files, cut, merged, tag
from logitstore.models.registry import build
from logitstore.training.runs import save_run
from teachers.registry import load_teacher

RATE = 8_000

TEACHERS = '''
"""Teachers for tests: how loud a window is decides between the classes."""
import torch


class Loud(torch.nn.Module):
    classes = ["loud", "quiet", "never"]
    sample_rate = 8_000
    scores = "sigmoid"
    heard = []

    def forward(self, waveforms):
        self.heard.append(tuple(waveforms.shape))
        level = waveforms.abs().mean(dim=1).clamp(0, 1)
        return torch.stack([level, 1 - level, torch.zeros_like(level)], dim=1)


class Fast(Loud):
    sample_rate = 16_000
'''


@pytest.fixture
def here(tmp_path, own_folder):
    """A folder with the teachers of a module of its own, whose name is given back."""
    name = f"teachers_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TEACHERS)
    return name


def write(name, levels, rate=RATE, channels=1, **kind):
    """A file of one second a level."""
    wave = np.repeat(np.array(levels, np.float32), rate)
    soundfile.write(name, np.repeat(wave[:, None], channels, axis=1), rate, **({"subtype": "FLOAT"} | kind))
    return name


def asked(here, *files, teachers=("Loud",), **changes):
    values = {"seconds": 1.0, "device": "cpu", "workers": 2}
    specs = [f"python:{here}:{name}" for name in teachers]
    return TagOptions(files=files, teachers=specs, **(values | changes))


def best(found):
    """Start, end and first tag of every window."""
    return [(window.start, window.end, *window.tags[0]) for window in found.windows]


@pytest.mark.parametrize(
    ("frames", "seconds", "hop", "starts", "length"),
    [
        (300, 1.0, 1.0, [0, 100, 200], 100),
        (350, 1.0, 1.0, [0, 100, 200, 250], 100),  # the last ends with the file
        (301, 1.0, 1.0, [0, 100, 200], 100),  # but no window for what an encoder leaves
        (303, 1.0, 1.0, [0, 100, 200, 203], 100),
        (300, 1.0, 0.5, [0, 50, 100, 150, 200], 100),
        (300, 0.5, 2.0, [0, 200, 250], 50),  # gaps are heard by nobody, the end is
        (60, 1.0, 1.0, [0], 60),
        (100, 1.0, 0.1, [0], 100),
        (0, 1.0, 1.0, [], 0),
    ],
)
def test_windows_cover_a_file_to_its_end(frames, seconds, hop, starts, length):
    found, lengths = cut(frames, 100, seconds, hop)
    assert found.tolist() == starts
    assert lengths.tolist() == [length] * len(starts)


def test_what_is_heard_changes_over_time(here):
    (found,) = tag(asked(here, write("a.wav", [0.9, 0.2, 0.7])))
    assert (found.path, found.seconds, found.sample_rate, found.error) == ("a.wav", 3.0, RATE, None)
    expected = [(0.0, 1.0, "loud", 0.9), (1.0, 2.0, "quiet", 0.8), (2.0, 3.0, "loud", 0.7)]
    for window, wanted in zip(best(found), expected, strict=True):
        assert window == (*wanted[:3], pytest.approx(wanted[3]))
    assert [name for name, _ in found.windows[1].tags] == ["quiet", "loud", "never"]
    (few,) = tag(asked(here, "a.wav", top=2, threshold=0.25))
    assert [[name for name, _ in window.tags] for window in few.windows] == [["loud"], ["quiet"], ["loud", "quiet"]]
    (hopped,) = tag(asked(here, "a.wav", hop=0.5))
    assert [window.start for window in hopped.windows] == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize(
    ("rate", "channels", "name", "kind"),
    [(8_000, 2, "a.flac", {"subtype": "PCM_16"}), (44_100, 1, "a.wav", {}), (11_025, 2, "a.wav", {}),
     (48_000, 2, "a.ogg", {"subtype": "VORBIS"})],
)  # fmt: skip
def test_any_rate_format_and_number_of_channels_is_heard(here, rate, channels, name, kind):
    (found,) = tag(asked(here, write(name, [0.8, 0.1], rate, channels, **kind), teachers=("Loud", "Fast")))
    assert (found.seconds, found.sample_rate) == (2.0, rate)
    assert [window[2] for window in best(found)] == ["loud", "quiet"]
    if name != "a.ogg":  # which holds no constant
        assert best(found)[0][3] == pytest.approx(0.8, abs=0.02)


def test_a_short_file_is_padded_and_batches_hold_windows_of_several_files(here):
    for number in range(5):
        write(f"{number}.wav", [0.1 * number] * (1 + number % 2))
    write("short.wav", [0.8])
    files = [*(f"{number}.wav" for number in range(5)), "short.wav"]
    together = list(tag(asked(here, *files, seconds=2.0, batch_size=4)))
    heard = sys.modules[here].Loud.heard
    assert heard == [(4, 2 * RATE), (2, 2 * RATE)]
    assert best(together[-1])[0] == (0.0, 1.0, "quiet", pytest.approx(0.6))  # one second of 0.8 in two
    for file, found in zip(files, together, strict=True):
        assert next(tag(asked(here, file, seconds=2.0))) == found


def test_memory_does_not_grow_with_a_file_and_results_come_as_they_are_ready(here, monkeypatch):
    write("first.wav", [0.5] * 4)
    write("long.wav", [0.5] * 60)
    decoded = []
    original = job.ClipAudio.__getitem__
    monkeypatch.setattr(job.ClipAudio, "__getitem__", lambda self, row: decoded.append(row) or original(self, row))
    results = tag(asked(here, "first.wav", "long.wav", batch_size=4))
    assert next(results).path == "first.wav"
    assert len(decoded) <= 8  # the batch that was heard, and the next
    assert len(next(results).windows) == 60
    assert next(results, None) is None


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_heard(here):
    Path("not.wav").write_text("not audio")
    Path("empty.wav").touch()
    write("none.wav", [])
    write("good.wav", [0.9])
    write("broken.wav", [0.9] * 4, subtype="PCM_16")
    os.truncate("broken.wav", 44 + 2 * int(2.5 * RATE))
    files = ["not.wav", "missing.wav", "good.wav", "empty.wav", "broken.wav", "none.wav", "good.wav", "/dev/null"]
    found = list(tag(asked(here, *files)))
    assert [file.path for file in found] == files
    assert found[0].error == "not readable as audio: Format not recognised: it begins with the text 'not audio'"
    assert found[1].error == "cannot be opened: No such file or directory"
    assert found[3].error == "empty: zero bytes"
    assert found[4].error == f"from 2.5 s on: truncated: {RATE * 5 // 2} of {RATE * 4} frames"
    assert found[5].error == "empty: the file has no frames"
    assert found[7].error == "not a regular file"
    assert [len(file.windows) for file in found] == [0, 0, 1, 0, 3, 0, 1, 0]
    assert found[2].error is None
    (alone,) = tag(asked(here, "not.wav"))
    assert alone == found[0]


def test_a_run_folder_is_heard_in_clips_of_the_length_that_it_learnt_from(here):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build("cnn4", 2, width=2)
    for name, training in (
        ("teacher", {"options": {"clip_seconds": 3.0}}),
        ("student", {"options": {}, "store": {"clip_seconds": 2.0}}),
        ("unknown", {}),
    ):
        save_run(name, "cnn4", {"width": 2}, ["a", "b"], "sigmoid", 16_000, model, {"training": training})
    write("a.wav", [0.5] * 12)
    lengths = {}
    for name in ("teacher", "student", "unknown"):
        (found,) = tag(TagOptions(files=["a.wav"], teachers=[name], device="cpu"))
        lengths[name] = found.windows[0].end
        assert sorted(tag for tag, _ in found.windows[0].tags) == ["a", "b"]
    assert lengths == {"teacher": 3.0, "student": 2.0, "unknown": 10.0}
    assert load_teacher("unknown").contract.trained_seconds is None
    (both,) = tag(TagOptions(files=["a.wav"], teachers=["teacher", "student"], device="cpu"))
    assert both.windows[0].end == 2.0


def test_windows_longer_than_a_teacher_hears_are_refused(here, monkeypatch):
    teacher = load_teacher(f"python:{here}:Loud")
    teacher.restate(max_seconds=0.5)
    monkeypatch.setattr("teachers.registry.load_teacher", lambda spec: teacher)
    write("a.wav", [0.5] * 2)
    with pytest.raises(
        UsageError, match=r"--seconds is 1 and teacher 'python:.*' hears at most 0.50 s; choose shorter"
    ):
        list(tag(asked(here, "a.wav")))
    (found,) = tag(asked(here, "a.wav", seconds=None))
    assert found.windows[0].end == 0.5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seconds": 0.0}, UsageError, "--seconds is 0; allowed are 0.1 to 3600"),
        ({"hop": -1.0}, UsageError, "--hop is -1; allowed are 0.1 to 3600"),
        ({"top": 0}, UsageError, "--top is 0; it must be at least 1"),
        ({"threshold": 1.5}, UsageError, "--threshold is 1.5; allowed are 0 to 1"),
        ({"files": []}, UsageError, "no audio was given; name at least one file or folder"),
        ({"teachers": []}, UsageError, "no teacher was given"),
        ({"teachers": ["runs/none"]}, TeacherError, "no teacher 'runs/none'"),
        ({"weights": [1.0, 2.0]}, TeacherError, "2 teacher weights for 1 teachers"),
    ],
)
def test_bad_input_is_one_clear_line(here, changes, error, message):
    values = {"files": ["a.wav"], "teachers": [f"python:{here}:Loud"], "device": "cpu"} | changes
    with pytest.raises(error, match=message):
        list(tag(TagOptions(**values)))


def test_folders_and_patterns_stand_for_the_audio_in_them(here):
    for name in ("in/a.wav", "in/deep/b.flac", "in/.hidden.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write(name, [0.9], **({"subtype": "PCM_16"} if name.endswith("flac") else {}))
    Path("in/notes.txt").write_text("no audio")
    assert audio_files(["in"]) == [("in/a.wav", "a.wav"), ("in/deep/b.flac", "deep/b.flac")]
    assert audio_files(["in/*"]) == [("in/a.wav", "a.wav"), ("in/deep/b.flac", "deep/b.flac")]
    assert audio_files(["in/**/*.flac", "gone.wav"]) == [("in/deep/b.flac", "deep/b.flac"), ("gone.wav", "gone.wav")]
    assert [found.path for found in tag(asked(here, "in"))] == ["in/a.wav", "in/deep/b.flac"]
    with pytest.raises(UsageError, match="no file is called like this pattern"):
        audio_files(["in/*.ogg"])
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="no audio found; files are known by their endings"):
        audio_files(["empty"])
    Path("x[1].wav").touch()
    assert audio_files(["x[1].wav"]) == [("x[1].wav", "x[1].wav")]


def test_a_class_that_goes_on_is_one_label():
    def window(start, end, **tags):
        return Window(start, end, tuple(tags.items()))

    windows = [
        window(0, 2, dog=0.9, rain=0.2), window(1, 3, dog=0.6, rain=0.7), window(2, 4, rain=0.8),
        window(3, 5, dog=0.7), window(5.5, 7.5, dog=0.5),
    ]  # fmt: skip
    assert merged(windows, 0.5) == [(0, 5, "dog", 0.9), (1, 4, "rain", 0.8), (5.5, 7.5, "dog", 0.5)]
    assert merged(windows, 0.95) == []


def labelled(source, root):
    """What a source of label files reads: (path, start, seconds, label)."""
    from logitstore.audio.sources import open_source

    rows = open_source(source, str(root)).listing().to_pylist()
    flat = [(row, row.get("label") or row["Label"]) for row in rows]
    return sorted(
        (row["path"], row["start"], row["duration"], label)
        for row, labels in flat
        for label in (labels if isinstance(labels, list) else [labels])
    )


@pytest.mark.parametrize(("form", "out"), [("audacity", "labels"), ("raven", "labels"), ("raven", "all.txt")])
def test_what_is_written_as_labels_is_read_back_as_labels(here, form, out):
    for name, levels in (("in/y/a.wav", [0.9, 0.8, 0.2]), ("in/x/a.wav", [0.1, 0.9]), ("in/x/b c.wav", [0.7])):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write(name, levels)
    source = "in" if out == "labels" else "in/x"
    done = run(here, source, "--format", form, "--out", out)
    assert done.exit_code == 0, done.output
    counts = "3 recordings, 5 labels" if source == "in" else "2 recordings, 3 labels"
    assert done.stdout == f"wrote      {out}: {counts}\n"
    expected = [("x/a.wav", 0, 1, "quiet"), ("x/a.wav", 1, 1, "loud"), ("x/b c.wav", 0, 1, "loud")]
    expected += [("y/a.wav", 0, 2, "loud"), ("y/a.wav", 2, 1, "quiet")]
    if out == "all.txt":
        expected = [(path.removeprefix("x/"), *rest) for path, *rest in expected[:3]]
    assert labelled(out, source) == sorted(expected)


def test_a_label_track_of_one_file_goes_to_the_terminal_and_of_several_to_a_folder(here):
    write("a.wav", [0.9, 0.2])
    write("b.wav", [0.5])
    assert run(here, "a.wav", "--format", "audacity").stdout == "0.000000\t1.000000\tloud\n1.000000\t2.000000\tquiet\n"
    for more in ((), ("--out", "track.txt")):
        refused = run(here, "a.wav", "b.wav", "--format", "audacity", *more)
        assert refused.exit_code == 1
        assert "a label track is of one recording" in str(refused.exception)
    strict = run(here, "a.wav", "--format", "audacity", "--threshold", "0.95")
    assert (strict.exit_code, strict.stdout) == (0, "")
    assert "no class reaches 0.95 anywhere" in " ".join(strict.stderr.split())


def test_csv_and_json_are_known_by_the_ending_of_the_file(here):
    write("a.wav", [0.75, 0.25])
    assert run(here, "a.wav", "--top", "1", "--out", "tags.csv").exit_code == 0
    assert Path("tags.csv").read_text().splitlines() == [
        "path,start,end,class,probability", "a.wav,0,1,loud,0.75", "a.wav,1,2,quiet,0.75",
    ]  # fmt: skip
    assert run(here, "a.wav", "--top", "1", "--out", "tags.json").exit_code == 0
    printed = run(here, "a.wav", "--top", "1", "--format", "json").stdout
    assert json.loads(Path("tags.json").read_text()) == json.loads(printed)
    assert len(json.loads(printed)["windows"]) == 2
    both = run(here, "a.wav", "--json", "--out", "tags.json")
    assert "--json and --out are both given" in str(both.exception)


def test_recordings_that_differ_by_their_ending_alone_keep_it(here):
    Path("in").mkdir()
    write("in/a.wav", [0.9])
    write("in/a.flac", [0.2], subtype="PCM_16")
    assert run(here, "in", "--format", "audacity", "--out", "labels").exit_code == 0
    assert labelled("labels", "in") == [("a.flac", 0, 1, "quiet"), ("a.wav", 0, 1, "loud")]


def test_windows_as_the_teacher_itself_cuts_them(here, monkeypatch):
    from teachers.contract import Window as Own

    teacher = load_teacher(f"python:{here}:Loud")
    teacher.restate(window=Own(samples=4_000, hop=2_000))
    monkeypatch.setattr("teachers.registry.load_teacher", lambda spec: teacher)
    write("a.wav", [0.9, 0.2])
    (found,) = tag(asked(here, "a.wav", seconds=None), own_windows=True)
    assert [(window.start, window.end) for window in found.windows[:2]] == [(0.0, 0.5), (0.25, 0.75)]
    teacher.restate(window=None)
    (whole,) = tag(asked(here, "a.wav", seconds=None), own_windows=True)
    assert [window.end for window in whole.windows] == [2.0]


def run(here, *arguments):
    teacher = ("--teacher", f"python:{here}:Loud", "--device", "cpu", "--seconds", "1")
    return CliRunner().invoke(tag_command, [*teacher, *arguments])


def test_the_command_prints_a_table_a_file_and_one_line_for_what_is_wrong(here):
    write("a.wav", [0.9, 0.2])
    write("b.wav", [0.5])
    done = run(here, "a.wav", "missing.wav", "b.wav", "--top", "2", "--threshold", "0.15")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "a.wav  0:02, 8000 Hz",
        "  0:00 - 0:01   0.90 loud",
        "  0:01 - 0:02   0.80 quiet   0.20 loud",
        "b.wav  0:01, 8000 Hz",
        "  0:00 - 0:01   0.50 loud   0.50 quiet",
    ]
    assert done.stderr == "Error: missing.wav: cannot be opened: No such file or directory\n"
    none = run(here, "a.wav", "--threshold", "0.95")
    assert (none.exit_code, none.stdout.splitlines()[1]) == (0, "  0:00 - 0:01   -")


def test_the_command_prints_json_lines(here):
    write("a.wav", [0.75, 0.25])
    done = run(here, "a.wav", "missing.wav", "--json", "--top", "1")
    assert done.exit_code == 1
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "command": "tag",
        "exit_code": 0,
        "path": "a.wav",
        "seconds": 2.0,
        "sample_rate": RATE,
        "windows": [
            {"start": 0.0, "end": 1.0, "tags": [{"class": "loud", "probability": 0.75}]},
            {"start": 1.0, "end": 2.0, "tags": [{"class": "quiet", "probability": 0.75}]},
        ],
        "error": None,
    }
    assert (second["path"], second["windows"]) == ("missing.wav", [])
    assert (second["error"], second["exit_code"]) == ("cannot be opened: No such file or directory", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_heard_too(here):
    write("a.wav", [0.9])
    name = os.fsdecode(b"caf\xe9.wav")
    Path("a.wav").rename(name)
    for form in ((), ("--json",)):
        done = run(here, name, *form)
        assert done.exit_code == 0, done.output
        assert "caf\\udce9.wav" in done.stdout


def test_a_table_keeps_to_the_terminal():
    names = ("Speech", "Inside, small room", "Music")
    tags = tuple((name, 0.5) for name in names)
    found = Tagged("a.wav", 3723.5, 16_000, [Window(0.0, 10.0, tags), Window(3713.5, 3723.5, tags[:2])])
    assert render(found).splitlines() == [
        "a.wav  1:02:03.5, 16000 Hz",
        "            0:00 - 0:10   0.50 Speech   0.50 Inside, small room   0.50 Music",
        "  1:01:53.5 - 1:02:03.5   0.50 Speech   0.50 Inside, small room",
    ]
    narrow = render(found, 60).splitlines()
    assert len(narrow) == 6
    assert max(map(len, narrow)) <= 60
    assert narrow[2].strip() == "0.50 Inside, small room"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.999, "1:00"), (62.5, "1:02.5"), (62.05, "1:02.05"), (600, "10:00"), (3600, "1:00:00")],
)
def test_times_read_as_clocks_do(seconds, text):
    assert clock(seconds) == text
