"""Stores that say when: frames."""

import json

import msgspec
import pytest

from logitstore.errors import CorruptStoreError
from logitstore.store.format.frames import FrameSpec
from logitstore.store.format.manifest import decode_root, encode_root, written_version
from logitstore.store.reader import open_store
from tests.small_store import make_store

FRAMES = FrameSpec(hop_ms=40, count=50, bits=4, floor=0.05)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return open_store(make_store(tmp_path_factory.mktemp("v3") / "store").path).manifest


@pytest.mark.parametrize("more", [{"frames": FRAMES}, {"quality": 0.001}, {"frames": FRAMES, "quality": 0.001}])
def test_only_a_store_with_frames_or_quality_is_of_version_4(manifest, more):
    assert written_version(**more) == 4
    replaced = msgspec.structs.replace(manifest, format_version=4, **more)
    assert decode_root(encode_root(replaced), "it") == replaced
    with pytest.raises(CorruptStoreError, match="format version 3 with frames"):
        decode_root(encode_root(msgspec.structs.replace(manifest, **more)), "it")


def test_a_store_without_them_is_version_3_and_names_neither(manifest):
    written = encode_root(manifest)
    assert written_version() == manifest.format_version == 3
    assert b'"frames"' not in written
    assert b'"quality"' not in written
    with pytest.raises(CorruptStoreError, match="format version 4 with frames None, quality None"):
        decode_root(written.replace(b'"format_version":3', b'"format_version":4'), "it")


@pytest.mark.parametrize(
    "change", [{"hop_ms": 0}, {"hop_ms": 5}, {"count": 49}, {"count": 51}, {"bits": 2}, {"bits": 9},
               {"floor": 0.0}, {"floor": 1.0}, {"floor": -1}, {"hop_ms": 40.5}, {"hop_ms": None}, {"more": 1}],
)  # fmt: skip
def test_frames_that_no_store_has_are_refused(manifest, change):
    document = json.loads(encode_root(msgspec.structs.replace(manifest, format_version=4, frames=FRAMES)))
    document["attributes"]["logitstore"]["frames"] |= change
    with pytest.raises(CorruptStoreError, match="frames"):
        decode_root(json.dumps(document).encode(), "it")
