"""Clips decoded ahead of their use: in order, no further than told, the failures kept."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from logitstore.audio.ahead import decoded_ahead
from logitstore.errors import AudioError


class Sounds:
    """Clips of one sample, their own number; every fifth cannot be decoded."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, clip):
        self.asked.append(clip)
        if clip % 5 == 4:
            raise AudioError(f"no clip {clip}")
        return np.array([clip], np.float32)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_clips_come_in_order_and_failures_in_their_places(workers):
    clips = [7, 3, 4, 12, 0, 9, 7]
    pool = ThreadPoolExecutor(workers) if workers else None
    found = list(decoded_ahead(Sounds(), clips, pool, 3))
    assert [clip for clip, _ in found] == clips
    for clip, sound in found:
        if clip in (4, 9):
            assert isinstance(sound, AudioError)
            assert str(sound) == f"no clip {clip}"
        else:
            assert sound.tolist() == [clip]


@pytest.mark.parametrize("ahead", [0, 2, 6])
def test_no_more_clips_are_decoded_than_told(ahead):
    sounds = Sounds()
    with ThreadPoolExecutor(2) as pool:
        decoding = decoded_ahead(sounds, range(100), pool, ahead)
        next(decoding)
        decoding.close()
    assert len(sounds.asked) <= 1 + ahead
    alone = Sounds()
    next(decoded_ahead(alone, range(100), None, 50))
    assert alone.asked == [0]


def test_other_errors_come_out():
    class Broken:
        def __getitem__(self, clip):
            raise RuntimeError("the disk is on fire")

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="on fire"):
        list(decoded_ahead(Broken(), [1], pool, 1))
