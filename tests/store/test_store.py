"""Reading a store: what is refused, and what damage is found."""

import json
import subprocess
import sys

import numpy as np
import pytest

from logitstore import open_store
from logitstore.errors import CorruptStoreError, NotAStoreError, UsageError
from logitstore.jobs.build.job import build
from tests.stores import contents, inside, options, write_audio


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    write_audio(root / "audio", 20)
    with inside(root):
        build(options(root))
    return root / "store"


def what_a_reader_needs(root):
    """Objects of blocks and clips, less the groups' own metadata, which says nothing that is not known."""
    return [
        name
        for name in contents(root)
        if name.startswith(("blocks", "clips")) and not (name.startswith("blocks") and name.count("/") == 2)
    ]


@pytest.fixture
def copy(built, tmp_path):
    import shutil

    return shutil.copytree(built, tmp_path / "store")


def test_targets_come_in_any_order_with_repeats(built):
    store = open_store(built)
    rows = np.array([19, 0, 7, 7, 8])
    classes, probabilities = store.targets(2, rows)
    assert (classes.dtype, probabilities.dtype) == (np.uint16, np.float32)
    for position, row in enumerate(rows):
        alone = store.targets(2, [row])
        assert (alone[0][0] == classes[position]).all()
        assert (alone[1][0] == probabilities[position]).all()
    assert (np.diff(probabilities, axis=1) <= 0).all()
    assert store.targets(0, [])[0].shape == (0, 4)


def test_draws_of_all_rows_are_those_of_some(built):
    store = open_store(built)
    for name, values in store.draws(1).columns.items():
        np.testing.assert_array_equal(store.draws(1, [3, 11]).columns[name], values[[3, 11]])


@pytest.mark.parametrize(
    ("view", "rows", "message"),
    [(3, [0], "no view 3; it has views 0 to 2"), (0, [20], "clip 20 has no block"), (0, [-1], "clip -1 has no block")],
)
def test_what_is_not_there_is_refused(built, view, rows, message):
    with pytest.raises(UsageError, match=message):
        open_store(built).targets(view, rows)


def test_every_object_is_checked(copy):
    for name in what_a_reader_needs(copy) + [name for name in contents(copy) if name.startswith("commits")]:
        original = (copy / name).read_bytes()
        (copy / name).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(CorruptStoreError, match=r"damaged|not the object|not the file"):
            _read_everything(copy)
        (copy / name).write_bytes(original)
    _read_everything(copy)


def test_a_missing_object_is_an_error(copy):
    for name in what_a_reader_needs(copy):
        original = (copy / name).read_bytes()
        (copy / name).unlink()
        with pytest.raises(CorruptStoreError, match="is missing"):
            _read_everything(copy)
        (copy / name).write_bytes(original)


def test_another_manifest_is_refused(copy):
    root = copy / "zarr.json"
    root.write_text(root.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(CorruptStoreError, match="under another manifest"):
        open_store(copy).targets(0, [0])


def test_an_unknown_format_version_is_refused(copy):
    root = copy / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["logitstore"]["format_version"] = 7
    root.write_text(json.dumps(document))
    with pytest.raises(NotAStoreError, match="has format version 7; this release reads versions 1 to 4"):
        open_store(copy)


@pytest.mark.parametrize("content", [None, "", "[]", '{"attributes": {}}', '{"attributes": {"logitstore": 5}}'])
def test_what_is_no_store_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(NotAStoreError, match=r"no store at|is not a logitstore"):
        open_store(tmp_path)
    with pytest.raises(NotAStoreError, match="no store at"):
        open_store(tmp_path / "absent")


def test_opening_a_store_imports_neither_torch_nor_zarr(built):
    code = (
        "import sys, logitstore; store = logitstore.open_store(sys.argv[1]); store.targets(0, [0, 1]); store.clips;"
        "print(sorted({'torch', 'zarr', 'duckdb', 'soundfile'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code, built], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def _read_everything(root):
    store = open_store(root)
    _ = store.clips
    for view in range(store.views):
        store.targets(view, store.clips_of(view))
        store.draws(view)
    for commit in store.commits:
        store.block_targets(commit)
