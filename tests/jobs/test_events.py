"""Events: tag --frames and evaluate --events, of a teacher that says when."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from logitstore.cli.evaluate import evaluate_command
from logitstore.cli.tag import tag_command
from logitstore.errors import SourceError, TeacherError, UsageError
from logitstore.jobs.events import evaluate_events
from logitstore.jobs.options import EvaluateOptions
from logitstore.jobs.tag import FrameScores, TagOptions, tag

RATE = 8_000
TEACHERS = '''
"""A teacher for tests that says of every 20 ms how loud it is."""
import torch


class When(torch.nn.Module):
    classes = ["loud", "quiet"]
    sample_rate = 8_000
    scores = "sigmoid"

    def forward(self, waveforms):
        return self.frame_probabilities(waveforms).mean(dim=1)

    def frame_probabilities(self, waveforms, masks=None):
        level = waveforms.unfold(1, 160, 160).abs().mean(dim=2).clamp(0, 1)
        return torch.stack([level, 1 - level], dim=2)


class Whole(torch.nn.Module):
    classes = ["loud", "quiet"]
    sample_rate = 8_000
    scores = "sigmoid"

    def forward(self, waveforms):
        return torch.full((len(waveforms), 2), 0.5)
'''


@pytest.fixture
def here(tmp_path, own_folder):
    """A folder with a teacher that says when, and two files: the spec of the teacher."""
    name = f"when_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TEACHERS)
    write("a.wav", [(0.3, 0.1), (0.9, 0.6), (0.2, 0.5), (0.8, 0.1), (0.1, 1.2)])
    write("b.wav", [(0.1, 0.4)])
    return f"python:{name}:When"


def write(name, levels):
    """A file of stretches, each of a level for so many seconds."""
    wave = np.concatenate([np.full(round(seconds * RATE), level, np.float32) for level, seconds in levels])
    soundfile.write(name, wave, RATE, subtype="FLOAT")


def asked(spec, *files, **changes):
    values = {"seconds": 1.0, "frames": True, "median_filter": 0.0, "device": "cpu", "workers": 1}
    return TagOptions(files=files, teachers=[spec], **(values | changes))


def spans(found):
    return [(each.start, each.end, each.label) for each in found.events]


def test_events_go_on_from_window_to_window(here):
    a, b = tag(asked(here, "a.wav", "b.wav"))
    assert spans(a) == [
        (0.0, 0.08, "quiet"), (0.08, 0.72, "loud"), (0.72, 1.2, "quiet"), (1.2, 1.28, "loud"), (1.28, 2.5, "quiet")
    ]  # fmt: skip
    assert [each.probability for each in a.events if each.label == "loud"] == pytest.approx([0.9, 0.8], abs=1e-6)
    assert spans(b) == [(0.0, 0.4, "quiet")]  # the padding after it is none of it
    assert a.windows == []
    assert a.frames.shape == (63, 2)


def test_a_filter_a_threshold_and_a_length_leave_events_out(here):
    (a,) = tag(asked(here, "a.wav", median_filter=0.3))
    assert [each for each in spans(a) if each[2] == "loud"] == [(0.08, 0.72, "loud")]
    (a,) = tag(asked(here, "a.wav", shortest=0.2))
    assert [each for each in spans(a) if each[2] == "loud"] == [(0.08, 0.72, "loud")]
    (a,) = tag(asked(here, "a.wav", threshold=0.85))
    assert [each for each in spans(a) if each[2] == "loud"] == [(0.12, 0.68, "loud")]


def test_windows_that_overlap_are_averaged():
    scores = FrameScores(0.2, 0.04, ["a"])
    scores.add(0.0, np.array([[0.2], [0.4], [0.6]], np.float32))
    scores.add(0.08, np.array([[0.8], [1.0], [1.0]], np.float32))
    assert scores.probabilities[:, 0] == pytest.approx([0.2, 0.4, 0.7, 1.0, 1.0])


def test_what_cannot_be_is_refused(here):
    with pytest.raises(TeacherError, match="--frames needs teachers that say when"):
        list(tag(asked(here.replace("When", "Whole"), "a.wav")))
    with pytest.raises(UsageError, match="--shortest is for events, and --frames is not given"):
        list(tag(asked(here, "a.wav", frames=False, shortest=0.1, median_filter=0.45)))


def run(command, *arguments):
    return CliRunner().invoke(command, [*arguments, "--device", "cpu"])


def test_the_command_writes_events_in_every_format(here):
    given = ("--teacher", here, "--seconds", "1", "--frames", "--median-filter", "0.3", "--threshold", "0.6")
    done = run(tag_command, *given, "a.wav", "missing.wav", "b.wav")
    assert done.exit_code == 1
    assert [line.rstrip() for line in done.stdout.splitlines()] == [
        "a.wav  0:02.5, 8000 Hz",
        "     0:00 - 0:00.08   0.70 quiet",
        "  0:00.08 - 0:00.68   0.90 loud",
        "   0:00.72 - 0:02.5   0.90 quiet",
        "b.wav  0:00.4, 8000 Hz",
        "  0:00 - 0:00.4   0.90 quiet",
    ]
    table = run(tag_command, *given, "--format", "csv", "b.wav").stdout
    assert list(csv.reader(io.StringIO(table))) == [
        ["path", "start", "end", "class", "probability"], ["b.wav", "0", "0.4", "quiet", "0.9"]
    ]  # fmt: skip
    found = json.loads(run(tag_command, *given, "--json", "b.wav").stdout)
    assert [each["class"] for each in found["events"]] == ["quiet"]
    assert "windows" not in found
    assert run(tag_command, *given, "--format", "audacity", "b.wav").stdout == "0.000000\t0.400000\tquiet\n"
    assert "quiet\t0.9000" in run(tag_command, *given, "--format", "raven", "b.wav").stdout
    assert "--frames gives events, and --top is of windows" in str(
        run(tag_command, *given, "--top", "2", "b.wav").exception
    )


def strong(*rows):
    Path("strong.tsv").write_text("\n".join(["filename\tonset\toffset\tevent_label", *rows]) + "\n")


def test_events_are_measured_against_strong_labels(here):
    strong("a.wav\t0.1\t0.7\tloud", "a.wav\t1.2\t1.3\tloud", "b.wav\t\t\t")
    asked = EvaluateOptions(
        manifest="strong.tsv", teachers=[here], events=True, clip_seconds=1.0, median_filter=0.0, device="cpu"
    )
    found = evaluate_events(asked)
    loud, quiet = found.f1.by_class
    assert (loud.hits, loud.false, loud.events) == (2, 0, 2)
    assert (quiet.hits, quiet.false, quiet.events) == (0, 4, 0)
    assert found.f1.macro == 1
    assert found.f1.micro == pytest.approx(4 / 8)
    assert found.psds["psds2"] == 1
    assert (found.files, found.seconds, found.events, found.found) == (2, pytest.approx(2.9), 2, 6)
    strong("a.wav\t0.1\t0.7\tloud", "gone.wav\t1\t2\tloud")
    assert evaluate_events(asked).failures[0][0] == "gone.wav"
    strong("a.wav\t0.1\t0.7\tLoud")
    with pytest.raises(SourceError, match=r"1 label that are no class|'Loud' \(perhaps 'loud'\)"):
        evaluate_events(asked)


def test_events_have_the_columns_that_are_said_and_the_cache_that_is_given(here, caplog):
    Path("own.csv").write_text("sound,file,from_s,to_s\nloud,a.wav,0.1,0.7\nloud,a.wav,1.2,1.3\n")
    asked = {
        "manifest": "own.csv", "teachers": [here], "events": True, "clip_seconds": 1.0, "median_filter": 0.0,
        "device": "cpu", "label_column": "sound", "path_column": "file", "start_column": "from_s", "end_column": "to_s",
        "audio_cache": "cache",
    }  # fmt: skip
    found = evaluate_events(EvaluateOptions(**asked))
    assert (found.events, found.f1.macro) == (2, 1)
    assert "audio cache cache: clips were read from it 0 times, 3 decoded and kept" in caplog.text
    caplog.clear()
    assert evaluate_events(EvaluateOptions(**asked)) == found
    assert "clips were read from it 3 times" in caplog.text


def test_the_command_shows_what_was_measured(here):
    strong("a.wav\t0.1\t0.7\tloud")
    done = run(evaluate_command, "strong.tsv", "--events", "--teacher", here, "--clip-seconds", "1", "--per-class")
    assert done.exit_code == 0, done.output
    assert "1 event in 1 file of 2.5 s; 3 were found at a threshold of 0.5 and a median filter of 0.45 s" in done.stdout
    refused = run(evaluate_command, "strong.tsv", "--events", "--teacher", here, "--where", "true")
    assert "--events measures what teachers hear when, and --where does not go with it" in str(refused.exception)
    refused = run(
        evaluate_command, "strong.tsv", "--teacher", here, "--label-column", "event_label", "--threshold", "1"
    )
    assert "--threshold is for events, and --events is not given" in str(refused.exception)
    refused = run(evaluate_command, "--events", "--teacher", here)
    assert "--events needs strong labels: give the MANIFEST" in str(refused.exception)
