"""A store looked at clip by clip: what it shows is what it holds, and what was heard."""

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import UsageError
from logitstore.jobs.build.job import build
from logitstore.views.recipe import parse_recipe
from tests.rendered import rendered_view
from tests.small_store import Spec, damage, make_store
from tests.stores import options, write_audio


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    labels = pa.array([f"<b>{number}</b>" for number in range(37)])
    return make_store(folder / "store", Spec(keep_members=True, view_ranges=((0, 2), (2, 3))), label=labels)


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A store of mixed and masked views, and its audio."""
    root = tmp_path_factory.mktemp("heard")
    write_audio(root / "audio", 10)
    ops = [{"op": "roll"}, {"op": "mixup", "probability": 0.7}, {"op": "time_mask", "max_seconds": 0.5}]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(root))
        sys.modules.pop("tones", None)
        build(options(root, recipe=parse_recipe({"ops": ops})))
    sys.modules.pop("tones", None)
    return root


def test_a_clip_shows_its_row_of_the_clip_table(made):
    store = open_store(made.path)
    clip = store[np.int64(3)]
    assert (clip.number, clip.path, clip.start, clip.length, clip.rate) == (
        3,
        "folder/clip 000003.wav",
        0,
        16000,
        16000,
    )
    assert (clip.start_s, clip.length_s, clip.columns, clip.views) == (0.0, 1.0, {"label": "<b>3</b>"}, (0, 1, 2))
    assert clip.failed is None
    assert repr(clip) == "<StoredClip 3: folder/clip 000003.wav, 0 to 1 s, views 0 to 2>"
    assert len(store) == 37
    assert [each.number for each in store] == list(range(37))


def test_a_failed_clip_says_so(made):
    clip = open_store(made.path)[10]
    assert (clip.failed, clip.views) == ("not audio", ())
    assert repr(clip).endswith("failed: not audio>")
    with pytest.raises(UsageError, match=r"clip 10 of .* has no view 0; it failed: not audio"):
        clip.view(0)


def test_what_is_not_there_is_refused(made):
    store = open_store(made.path)
    for clip in (-1, 37):
        with pytest.raises(UsageError, match=rf"clip {clip} is not in .*store; it has clips 0 to 36"):
            store[clip]
    with pytest.raises(UsageError, match=r"clip 0 of .* has no view 3; it has views 0 to 2"):
        store[0].view(3)


def test_a_clip_of_an_unfinished_shard_has_no_views(tmp_path):
    store = open_store(make_store(tmp_path / "store", Spec(skip_blocks=("000000-0-3",))).path)
    assert store[0].views == ()
    assert repr(store[0]).endswith("views none>")
    assert store[8].views == (0, 1, 2)


def test_a_view_shows_what_was_written(made):
    store = open_store(made.path)
    for number in range(3):
        view = store[9].view(number)
        np.testing.assert_array_equal(view.targets.classes, made.classes[9, number])
        np.testing.assert_array_equal(view.targets.probabilities, made.probabilities[9, number])
        assert view.targets.names == tuple(made.names[each] for each in made.classes[9, number])
        assert list(view.members) == ["net", "net #2"]
        np.testing.assert_array_equal(np.stack(list(view.members.values())), made.members[:, 9, number])
        assert view.draw == {name: values[9, number] for name, values in made.draws.items()}
        assert view.mask["time_start"] == view.draw["time_start"] / 100
        assert view.mask["time_end"] == (view.draw["time_start"] + view.draw["time_length"]) / 100
        (row,) = store.sql(f"SELECT * FROM views WHERE clip = 9 AND view = {number}").to_pylist()
        assert view.parameters == {name: row[name] for name in view.parameters}
        assert set(row) - set(view.parameters) == {"clip", "view", "entropy", "top1", "top1_probability"}


def test_a_view_of_several_stores_is_that_of_its_own(made, tmp_path):
    mixed = parse_recipe({"ops": [{"op": "mixup", "probability": 1.0}]})
    first = make_store(tmp_path / "a", Spec(clips=13, recipe=mixed)).path
    second = make_store(tmp_path / "b", Spec(clips=11, recipe=mixed, seed=4, failed=())).path
    both, alone = open_store([first, second]), open_store(second)
    assert len(both) == 24
    mine, theirs = both[13 + 9].view(1), alone[9].view(1)
    assert mine.clip.path == theirs.clip.path
    np.testing.assert_array_equal(mine.targets.probabilities, theirs.targets.probabilities)
    assert mine.parameters["mixup_partner_clip"] == theirs.parameters["mixup_partner_clip"] + 13
    assert mine.members is None
    assert mine.mask is None


def test_everything_shows_itself_and_escapes_what_it_shows(made):
    store = open_store(made.path)
    assert repr(store) == f"<Store {made.path}: 37 clips x 3 views, top 5 of 12 classes, sigmoid, recipe ced>"
    page = store._repr_html_()
    assert "37 of 2 s at 16,000 Hz, 1 failed" in page
    assert "clips&#x27; 16-bit PCM" in page
    page = store[3]._repr_html_()
    assert "&lt;b&gt;3&lt;/b&gt;" in page
    assert "<b>" not in page
    view = store[3].view(1)
    assert repr(view).startswith("<StoredView 1 of clip 3 (folder/clip 000003.wav): class ")
    page = view._repr_html_()
    assert page.count("height:.8em;width:") == 5
    assert f"width:{100 * float(made.probabilities[3, 1, 0]):.1f}%" in page
    assert f"{view.drawn['time_mask']}</td>" in page
    assert "store.with_audio(FOLDER)" in page


def test_a_damaged_store_shows_itself_too(tmp_path):
    made = make_store(tmp_path / "store", Spec())
    (made.path / "commits" / "000000-0-3.json").write_text("{}")
    assert "damaged" in repr(open_store(made.path))
    other = make_store(tmp_path / "other", Spec())
    damage(other.path, "000000-0-3")
    assert "37 clips x 3 views" in repr(open_store(other.path))  # no block is decoded
    for path in (made.path, other.path):
        assert "damaged: " in open_store(path)._repr_html_()


def test_a_view_is_heard_as_the_teachers_heard_it(audio):
    store = open_store(audio / "store", audio_root=audio / "audio")
    clips = ClipAudio(open_audio(str(audio / "audio")), store.clips, 16_000)
    mixed = 0
    for clip in range(0, 10, 3):
        for number in range(3):
            view = store[clip].view(number)
            waveform, masks = rendered_view(store, clips, clip, number)
            np.testing.assert_array_equal(view.waveform, waveform.numpy())
            assert view.waveform.dtype == np.float32
            hidden = (np.arange(view.log_mel.shape[1]) / 100 >= masks.time_start) & (
                np.arange(view.log_mel.shape[1]) / 100 < masks.time_end
            )
            assert view.log_mel.shape == (64, 201)
            assert (view.log_mel[:, hidden] == 0).all()
            assert (view.log_mel[:, ~hidden] != 0).any()
            mixed += view.draw["mixup_weight"] > 0
    assert mixed
    np.testing.assert_array_equal(store.audio[4], clips[4])


def test_audio_can_be_given_later_and_goes_to_other_processes(audio):
    store = open_store(audio / "store")
    assert store.audio is None
    with pytest.raises(UsageError, match=r"was opened without its audio; give open_store\(…, audio_root=FOLDER\)"):
        _ = store[0].view(0).waveform
    heard = store.with_audio(audio / "audio")
    again = pickle.loads(pickle.dumps(heard))
    np.testing.assert_array_equal(again[0].view(1).waveform, heard[0].view(1).waveform)
    with pytest.raises(UsageError, match="3 audio roots for 1 store; give one for all of them"):
        _ = store.with_audio([audio / "audio"] * 3).audio


def test_looking_at_a_store_imports_torch_only_to_hear_it(audio):
    code = (
        "import sys, logitstore; store = logitstore.open_store(sys.argv[1], audio_root=sys.argv[2]);"
        "view = store[0].view(1); view.targets, view.parameters, view.mask, view.drawn, repr(view), repr(store);"
        "store._repr_html_(); logitstore.open_store(sys.argv[1])[0].view(1)._repr_html_();"
        "print('torch' in sys.modules); view.log_mel; print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(audio / "store"), str(audio / "audio")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
