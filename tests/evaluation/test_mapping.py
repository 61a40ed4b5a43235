"""Maps of labels to classes: what a file may hold, what is scored by it, and what is proposed for whose labels."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from logitstore.classes import audioset
from logitstore.cli.main import cli
from logitstore.errors import SourceError, UsageError
from logitstore.evaluation.mapping import read_map
from logitstore.evaluation.proposal import below, ontology, propose
from logitstore.jobs.build.job import BuildOptions, build
from logitstore.jobs.evaluate import EvaluateOptions, evaluate
from logitstore.jobs.map_labels import map_labels
from logitstore.jobs.options import MapOptions

NAMES = tuple(each.display_name for each in audioset())


def written(text, name="map.csv"):
    Path(name).write_text(text)
    return name


@pytest.fixture(autouse=True)
def here(own_folder):
    return own_folder


def test_a_label_is_the_maximum_or_the_sum_of_its_classes():
    used = read_map(
        written("combine,label,class,why\n,a,Bark,\n,a,Yip,it yips\nsum,b,Bark,\n,b,/m/07rc7d9,\n,open,,\n")
    )
    assert used.classes == {"a": ("Bark", "Yip"), "b": ("Bark", "/m/07rc7d9"), "open": ()}
    order = ("Music", "Yip", "Bark", "Bow-wow")
    labels = used.scored([("teacher 'x'", order)])
    assert labels == ("a", "b")
    scores = np.array([[0.9, 0.3, 0.2, 0.4], [0.9, 0.1, 0.7, 0.6]], np.float32)
    np.testing.assert_allclose(used.onto(labels, order)(scores), [[0.3, 0.6], [0.7, 1.0]], rtol=1e-6)
    own = used.onto(labels, order, own=("Bark",))  # a member that knows one class of the joined order
    np.testing.assert_allclose(own(scores), [[0.2, 0.2], [0.7, 0.7]], rtol=1e-6)
    for text in ("label;class\na;Bark\n", "class\tlabel\nBark\ta\n", '# by hand\n\nLabel , Class\n"a", "Bark"\n'):
        assert read_map(written(text)).classes == {"a": ("Bark",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the map 'map.csv' is empty; give rows of label,class"),
        ("label,class\n", "has no rows"),
        ("name,class\na,Bark\n", r"its first line is 'name,class'; it must name the columns, as label,class"),
        ("label,class\na,Bark\n,Yip\n", "line 3 has no label"),
        ("label,class\na,Bark\nb,Yip\na,Bark\n", "line 4: the label 'a' has the class 'Bark' twice"),
        ("label,class\na,Waves, surf\n", r"line 2: 3 columns, where the first line has 2; put a name with a comma in"),
        ("label,class,combine\na,Bark,mean\n", "line 2: combine is 'mean'; allowed are max, sum"),
        ("label,class,combine\na,Bark,max\na,Yip,sum\n", "line 3: the label 'a' is combined by sum here and by max"),
        ('label,class\na,"Bark\n', "line 2: "),
    ],
)
def test_a_file_that_is_no_map_is_refused_with_its_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_map(written(text))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"the map 'none.csv' cannot be read: No such file"):
        read_map("none.csv")


def test_classes_that_no_teacher_has_are_refused_and_those_that_one_lacks_are_said(caplog):
    used = read_map(written("label,class\na,Barc\n"))
    with pytest.raises(UsageError, match=r"'Barc' \(perhaps 'Bark'\), for the label 'a', is no class of teacher 'x'"):
        used.scored([("teacher 'x'", ("Music", "Bark"))])
    used = read_map(written("label,class\na,Bark\na,Yip\nb,Battle cry\nc,meow\n"))
    with caplog.at_level("INFO", "logitstore"):
        assert used.scored([("teacher 'x'", ("Bark", "Yip", "meow")), ("teacher 'y'", ("Bark", "meow"))]) == ("a", "c")
    said = " | ".join(caplog.messages)
    assert "teacher 'y' lacks 2 of the 4 classes of the map 'map.csv': 'Yip', 'Battle cry'" in said
    assert "teacher 'x' has no class of the label 'b'; left out" in said
    with pytest.raises(UsageError, match="has no label with a class that teacher 'x' has"):
        read_map(written("label,class\nb,Battle cry\n")).scored([("teacher 'x'", ("Bark",))])


TEACHERS = '''
import torch


class Dogs(torch.nn.Module):
    """Of a constant waveform of level p: Bark p where p < .5, Yip where it is more, Music 1 - p."""
    classes = ["Bark", "Yip", "Music"]
    sample_rate = 8_000
    scores = "sigmoid"

    def forward(self, waveforms):
        level = waveforms.abs().mean(dim=1)
        zero = torch.zeros_like(level)
        return torch.stack([level.where(level < 0.5, zero), level.where(level >= 0.5, zero), 1 - level], dim=1)
'''


def sounds(name):
    """Ten files, file i of the level (i + 1) / 20; the first five dogs, four of them music, and two of none mapped."""
    Path(f"{name}.py").write_text(TEACHERS)
    Path("audio").mkdir()
    labels = ["music", "dog", "music", "dog;music", "music", "dog", "cat;dog", "dog", "cat", ""]
    for number in range(10):
        soundfile.write(f"audio/{number}.wav", np.full(8_000, (number + 1) / 20, np.float32), 8_000, subtype="FLOAT")
    Path("labels.csv").write_text("path,label\n" + "".join(f"{n}.wav,{each}\n" for n, each in enumerate(labels)))
    return [(number, set(each.split(";"))) for number, each in enumerate(labels)]


@pytest.mark.parametrize("way", ["max", "sum"])
def test_a_teacher_and_a_store_are_scored_on_labels_that_are_no_classes(here, way, caplog):
    rows = sounds(f"dogs_{here.name}")
    written(f"label,class,combine\ndog,Bark,{way}\ndog,Yip,{way}\nmusic,Music,\ncat,,\n")
    spec = f"python:dogs_{here.name}:Dogs"
    build(BuildOptions(source="audio", out="store", teachers=[spec], recipe="none", views=1, clip_seconds=1.0,
                       device="cpu"))  # fmt: skip
    asked = {"manifest": "labels.csv", "label_column": "label", "map": "map.csv"}
    heard = {"audio_root": "audio", "teachers": [spec], "device": "cpu"}
    found = evaluate(EvaluateOptions(**asked, **heard, stored="store"))
    kept = [(number, labels) for number, labels in rows if labels != {"cat"}]
    truth = np.array([["dog" in labels, "music" in labels] for _, labels in kept])
    level = np.array([(number + 1) / 20 for number, _ in kept])
    scores = np.stack([level, 1 - level], axis=1)
    assert found.classes == ("dog", "music")
    assert found.members[0][1].mAP == pytest.approx(average_precision_score(truth, scores))
    assert found.stored.metrics.mAP == pytest.approx(average_precision_score(truth, scores))
    assert (found.map.unmapped, found.map.rows_left_out, found.rows) == (("cat",), 1, 9)
    alone = evaluate(EvaluateOptions(**asked, stored="store"))
    assert alone.stored.metrics == found.stored.metrics
    assert alone.to_dict()["map"]["unmapped"] == ("cat",)
    written("label,class\nbird,Bark\n")
    with pytest.raises(SourceError, match=r"none of 10 rows has a label of the map 'map.csv': rows have 'cat', 'dog'"):
        evaluate(EvaluateOptions(**asked, **heard))
    with pytest.raises(UsageError, match="--map says which labels are scored, and --classes would too"):
        evaluate(EvaluateOptions(**asked, **heard, classes=written("Bark\n", "classes.txt")))


def test_the_ontology_holds_all_classes_of_audioset_and_is_closed():
    nodes = ontology()
    assert len(nodes) == 632
    assert all(nodes[each.mid].name == each.display_name for each in audioset())
    assert {child for node in nodes.values() for child in node.children} <= set(nodes)
    assert [node.name for node in below("/m/0bt9lr")][:2] == ["Bark", "Yip"]


def proposed(label, classes=NAMES):
    return {row.name: row.why for row in propose([label], classes)}


@pytest.mark.parametrize(
    ("label", "names", "guess"),
    [
        ("Raindrop", {"Raindrop"}, False),
        ("Rain", {"Rain", "Raindrop", "Rain on surface"}, False),
        ("/m/06mb1", {"Rain", "Raindrop", "Rain on surface"}, False),
        ("rain", {"Rain", "Raindrop", "Rain on surface"}, True),
        ("dog_bark", {"Bark"}, True),  # and not what lies above it
        ("sea_waves", {"Waves, surf"}, True),
        ("crying-baby", {"Baby cry, infant cry"}, True),
        ("church bells", {"Church bell"}, True),
        ("gun_shot", {"Gunshot, gunfire", "Machine gun", "Fusillade", "Artillery fire", "Cap gun"}, True),
        ("helicoptr", {"Helicopter"}, True),
        ("crow", {"Crow", "Caw"}, True),
        ("street_music", {"Music"}, True),
        ("cow", {""}, False),  # not Crow
        ("7", {""}, False),  # no index
        ("MP3", {""}, False),  # a node of the ontology that is no class, and has none below it
    ],
)
def test_what_is_proposed_for_a_label(label, names, guess):
    rows = propose([label], NAMES)
    assert {row.name for row in rows} == names
    assert all(row.guessed is guess for row in rows)


def test_an_inner_node_that_is_no_class_stands_for_those_below_it():
    voices = proposed("Human voice")
    assert voices["Speech"] == voices["Whispering"] == "below Human voice"
    assert "Music" not in voices
    assert proposed("human_voice")["Speech"] == "guess: below Human voice"
    fewer = tuple(each for each in NAMES if each != "Dog")  # a vocabulary without the class itself
    assert proposed("Dog", fewer)["Bark"] == "below Dog"
    mids = tuple(each.mid for each in audioset())
    assert set(proposed("Rain", mids)) == {"/m/06mb1", "/m/07r10fb", "/t/dd00038"}


def test_other_vocabularies_are_met_by_spelling():
    birds = ("Turdus merula_Eurasian Blackbird", "Parus major_Great Tit", "Erithacus rubecula_European Robin")
    assert proposed("great tit", birds) == {birds[1]: "guess: spelled alike"}
    assert proposed("Turdus merula", birds) == {birds[0]: "guess: spelled alike"}
    assert proposed("blackbird", birds) == {"": "no class found: give one, or leave it out"}
    assert proposed("speech", birds) == {"": "no class found: give one, or leave it out"}


def test_a_proposal_is_a_map(here):
    sounds(f"dogs_{here.name}")
    spec = f"python:dogs_{here.name}:Dogs"
    proposal = map_labels(MapOptions(teacher=spec, labels="labels.csv"))
    rows = list(csv.DictReader(proposal.csv().splitlines()))
    assert [(row["label"], row["class"]) for row in rows] == [
        ("cat", ""), ("dog", "Bark"), ("dog", "Yip"), ("music", "Music")
    ]  # fmt: skip
    assert (proposal.found, proposal.guessed, proposal.without) == ((), ("dog", "music"), ("cat",))
    assert read_map(written(proposal.csv())).classes["dog"] == ("Bark", "Yip")
    Path("names.txt").write_text("Bark\nmusik\n")
    assert map_labels(MapOptions(teacher=spec, labels="names.txt")).found == ("Bark",)
    with pytest.raises(SourceError, match="no column 'class' to take labels from"):
        map_labels(MapOptions(teacher=spec, labels="labels.csv", label_column="class"))


def run(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_the_commands_propose_write_and_use_a_map(here):
    sounds(f"dogs_{here.name}")
    spec = f"python:dogs_{here.name}:Dogs"
    code, out, err = run("teachers", "map", spec, "labels.csv")
    assert code == 0
    assert out.splitlines()[:3] == ["label,class,combine,why", 'cat,,,"no class found: give one, or leave it out"',
                                    "dog,Bark,max,guess: below Dog"]  # fmt: skip
    assert "3 labels: 0 by name or MID, 2 guessed, 1 without a class; look at the guesses" in err
    code, out, _ = run("teachers", "map", spec, "labels.csv", "--out", "map.csv", "--json")
    found = json.loads(out)
    assert (code, found["command"], found["out"], found["without"]) == (0, "teachers map", "map.csv", ["cat"])
    assert found["rows"][1] == {"label": "dog", "class": "Bark", "why": "guess: below Dog", "guess": True}
    asked = ("evaluate", "labels.csv", "--audio-root", "audio", "--label-column", "label", "--teacher", spec)
    code, out, _ = run(*asked, "--map", "map.csv", "--per-class")
    assert code == 0
    assert "labels by the map map.csv: 2 are scored" in out
    assert "left out: 1 label without a class: cat\nleft out: 1 row with no other label" in out


def test_teachers_of_unequal_vocabularies_are_scored_on_the_labels_that_all_can_tell(here, caplog):
    name = f"dogs_{here.name}"
    rows = sounds(name)
    more = "\n\nclass Mids(Dogs):\n    classes = ['/m/05tny_', '/m/04rlf']\n\n    def forward(self, waveforms):\n"
    Path(f"{name}.py").write_text(TEACHERS + more + "        return Dogs.forward(self, waveforms)[:, [0, 2]]\n")
    written("label,class\ndog,Bark\ndog,Yip\nmusic,/m/04rlf\ncat,Yip\n")
    specs = [f"python:{name}:Dogs", f"python:{name}:Mids"]
    asked = {"manifest": "labels.csv", "label_column": "label", "map": "map.csv", "audio_root": "audio",
             "device": "cpu"}  # fmt: skip
    with caplog.at_level("INFO", "logitstore"):
        found = evaluate(EvaluateOptions(**asked, teachers=specs))
    assert found.classes == ("dog", "music")
    assert "has no class of the label 'cat'; left out" in caplog.text
    alone = evaluate(EvaluateOptions(**asked, teachers=specs[1:]))
    assert alone.members[0][1] == found.members[1][1]
    rows = [labels for _, labels in rows if labels != {"cat"}]
    truth = np.array([["dog" in labels, "music" in labels] for labels in rows])
    level = np.array([(number + 1) / 20 for number in (0, 1, 2, 3, 4, 5, 6, 7, 9)])
    for barks, (_, metrics) in zip((level, np.where(level < 0.5, level, 0)), found.members, strict=True):
        assert metrics.mAP == pytest.approx(average_precision_score(truth, np.stack([barks, 1 - level], axis=1)))
