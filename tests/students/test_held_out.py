"""Clips that are held out by file: how far the share is from the one that was asked for is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from logitstore.errors import MismatchError
from students.held_out import held_out, split


def store(clips_of_file: list[int]) -> Any:
    paths = [f"{number}.wav" for number, clips in enumerate(clips_of_file) for _ in range(clips)]
    return SimpleNamespace(clips=pa.table({"path": paths}), location="store")


@pytest.mark.parametrize(
    ("clips_of_file", "share", "said"),
    [
        ([4, 4, 4], 0.05, "--hold-out 0.05 holds out 1 of 3 files, 4 of 12 clips (33% of the clips, 5% was asked for)"),
        ([1] * 7, 0.1, "holds out 1 of 7 files, 1 of 7 clips (14% of the clips"),
        ([1] * 40, 0.1, None),
        ([1] * 10, 0.1, None),
    ],
)
def test_a_share_that_few_files_cannot_give_is_said_with_the_numbers(
    clips_of_file: list[int], share: float, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    some = store(clips_of_file)
    every = np.arange(some.clips.num_rows)
    learned, apart = split(some, [every, every[:-1]], share)
    assert sorted([*learned[0], *apart[0]]) == every.tolist()
    assert caplog.text == "" if said is None else said in caplog.text


def test_files_of_very_different_sizes_are_no_share_of_the_clips(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [1] * 10
    chosen = held_out([f"{number}.wav" for number in range(10)], 0.1)
    sizes[int(np.flatnonzero(chosen)[0])] = 30
    split(store(sizes), [np.arange(39)], 0.1)
    assert "1 of 10 files, 30 of 39 clips (77% of the clips, 10% was asked for): a file's clips stay" in caplog.text


@pytest.mark.parametrize(
    ("clips_of_file", "share", "message"),
    [
        ([5], 0.2, r"holds out 1 of 1 files of store, all 5 clips .*leave it out, for there is one file"),
        ([2, 2], 0.9, r"--hold-out 0\.9 leaves nothing to learn from: it holds out 2 of 2 files .*; hold out less"),
    ],
)
def test_a_share_that_leaves_nothing_is_refused(clips_of_file: list[int], share: float, message: str) -> None:
    some = store(clips_of_file)
    with pytest.raises(MismatchError, match=message):
        split(some, [np.arange(some.clips.num_rows)], share)
