"""``logitstore export``: the flat table against the store, and CED's files as CED's own reader reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from logitstore.cli.export import export_command
from logitstore.errors import MissingExtraError, OutputError, UsageError
from logitstore.jobs.export import export_ced, export_parquet
from logitstore.jobs.imports.ced import CedImport, import_ced
from logitstore.store.reader import open_store
from logitstore.views.recipe import NONE
from tests.ced_folder import Row, make_rows, write_ced, write_classes, write_wav
from tests.small_store import Made, Spec, make_store
from tests.stores import contents


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    columns = {"fold": pa.array(range(37)), "view": pa.array(["front"] * 37)}
    return make_store(tmp_path_factory.mktemp("export") / "store", Spec(view_ranges=((0, 2), (2, 3))), **columns)


# one flat table


def test_the_flat_table(made: Made, tmp_path: Path) -> None:
    counted: list[int] = []
    store = open_store(made.path)
    said = export_parquet(store, tmp_path / "flat.parquet", advance=counted.append)
    assert said == f"108 views written to {tmp_path / 'flat.parquet'}"
    assert sum(counted) == 36 * 3
    table = pq.read_table(tmp_path / "flat.parquet")
    assert table.column_names == [
        "path", "start", "length", "rate", "fold", "clip_view", "clip", "view", "roll_samples", "time_start_ms",
        "time_end_ms", "freq_low_step", "freq_high_step", "freq_low_hz", "freq_high_hz", "classes", "probabilities",
    ]  # fmt: skip
    assert table.schema.field("classes").type == pa.list_(pa.string())
    assert table.schema.field("probabilities").type == pa.list_(pa.float32())
    for row in table.to_pylist():
        clip, view = row["clip"], row["view"]
        assert (row["path"], row["fold"]) == (f"folder/clip {clip:06d}.wav", clip)
        assert row["classes"] == [made.names[c] for c in made.classes[clip, view]]
        assert row["probabilities"] == made.probabilities[clip, view].tolist()
        assert row["roll_samples"] == made.draws["roll"][clip, view]
    assert {(row["clip"], row["view"]) for row in table.select(["clip", "view"]).to_pylist()} == {
        (clip, view) for clip in range(37) for view in range(3) if clip != 10
    }
    joined = store.sql("SELECT * EXCLUDE (entropy, top1, top1_probability) FROM views ORDER BY clip, view")
    assert table.select(joined.column_names).sort_by([("clip", "ascending"), ("view", "ascending")]) == joined


def test_classes_by_number(made: Made, tmp_path: Path) -> None:
    export_parquet(open_store(made.path), tmp_path / "flat.parquet", class_indices=True)
    table = pq.read_table(tmp_path / "flat.parquet")
    assert table.schema.field("classes").type == pa.list_(pa.uint16())
    row = table.slice(5, 1).to_pylist()[0]
    assert row["classes"] == made.classes[row["clip"], row["view"]].tolist()


def test_it_is_written_block_by_block(made: Made, tmp_path: Path) -> None:
    export_parquet(open_store(made.path), tmp_path / "flat.parquet")
    with pq.ParquetFile(tmp_path / "flat.parquet") as file:
        assert file.num_row_groups == len(open_store(made.path).commits)


# CED's files


def ced_store(root: Path, *, keep_seeds: bool = True, recipe: str = "ced", value_bits: int = 16) -> list[list[Row]]:
    """A store imported from small files of CED, whose audio lies in folders; clip Y3 is missing."""
    names = [f"Y{number}.wav" for number in range(9)]
    for number, name in enumerate(names):
        if number != 3:
            write_wav(root / "audio" / "ab"[number % 2] / name, 40_000 - 160 * number, seed=number)
    epochs = make_rows([(name, 0.0, (40_000 - 160 * number) / 16_000) for number, name in enumerate(names)], epochs=3)
    write_ced(root / "logits", epochs)
    import_ced(
        CedImport(
            folder=str(root / "logits"), audio_root=str(root / "audio"), out=str(root / "store"), shard_clips=4,
            classes=str(write_classes(root / "classes.txt")), keep_seeds=keep_seeds, recipe=recipe,
            value_bits=value_bits,
        )
    )  # fmt: skip
    return epochs


def read_as_ced(folder: Path, epoch: int) -> dict[tuple[str, int, int], tuple[dict[int, float], int]]:
    """Targets and seed by name, first and last sample: row i of the table is row i of the arrays."""
    table = pq.read_table(folder / f"logits_ep{epoch}_0.parquet").to_pylist()
    with h5py.File(folder / f"logits_ep{epoch}_0.h5") as file:
        arrays = {name: file[name][:] for name in file}
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        "topk_values": "float16", "topk_indexes": "int16", "seeds": "int32",
    }  # fmt: skip
    assert (np.diff(arrays["topk_values"], axis=1) <= 0).all()
    return {
        (row["filename"], round(row["start"] * 16_000), round(row["end"] * 16_000)): (
            dict(zip(arrays["topk_indexes"][i].tolist(), arrays["topk_values"][i].tolist(), strict=True)),
            int(arrays["seeds"][i]),
        )
        for i, row in enumerate(table)
    }


def test_round_trip(tmp_path: Path) -> None:
    epochs = ced_store(tmp_path)
    export_ced(open_store(tmp_path / "store"), tmp_path / "back")
    for epoch in (1, 2, 3):
        before, after = read_as_ced(tmp_path / "logits", epoch), read_as_ced(tmp_path / "back", epoch)
        assert len(before) == len(epochs[0])
        assert after == {key: value for key, value in before.items() if key[0] != "Y3.wav"}
    assert (
        pq.ParquetFile(tmp_path / "back/logits_ep1_0.parquet").metadata.row_group(0).column(0).compression == "BROTLI"
    )


def test_an_export_imports_as_the_same_blocks(tmp_path: Path) -> None:
    ced_store(tmp_path, value_bits=8)
    (tmp_path / "first").mkdir()
    export_ced(open_store(tmp_path / "store"), tmp_path / "back")
    options = {"audio_root": str(tmp_path / "audio"), "classes": str(tmp_path / "classes.txt"), "keep_seeds": True}
    for folder, out in (("back", "one"), ("again", "two")):
        import_ced(CedImport(folder=str(tmp_path / folder), out=str(tmp_path / out), **options))
        if folder == "back":
            export_ced(open_store(tmp_path / out), tmp_path / "again")
    first, second = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {n: c for n, c in first.items() if n.startswith(("blocks", "clips"))} == {
        n: c for n, c in second.items() if n.startswith(("blocks", "clips"))
    }


def test_a_store_without_ops_needs_no_seeds(tmp_path: Path) -> None:
    ced_store(tmp_path, keep_seeds=False, recipe="none")
    export_ced(open_store(tmp_path / "store"), tmp_path / "back")
    found = read_as_ced(tmp_path / "back", 2)
    assert len(found) == 8
    assert {seed for _, seed in found.values()} == {0}


# what cannot be


def test_draws_without_seeds_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds draws .roll, .* and no seeds, and CED's code can replay"):
        export_ced(open_store(made.path), tmp_path / "out")
    ced_store(tmp_path, keep_seeds=False)
    with pytest.raises(UsageError, match="import it with --keep-seeds"):
        export_ced(open_store(tmp_path / "store"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_ceds_files(tmp_path: Path) -> None:
    soft = make_store(tmp_path / "soft", Spec(recipe=NONE, scores="softmax"))
    with pytest.raises(UsageError, match="holds softmax scores, CED's files sigmoid"):
        export_ced(open_store(soft.path), tmp_path / "out")
    write_wav(tmp_path / "audio/a/x.wav", 16_000)
    write_wav(tmp_path / "audio/b/x.wav", 16_000)
    from logitstore.jobs.imports.npy import NpyImport, import_npy

    np.save(tmp_path / "scores.npy", np.zeros((2, 30), np.float32))
    (tmp_path / "names.txt").write_text("a/x.wav\nb/x.wav\n")
    import_npy(
        NpyImport(
            array=str(tmp_path / "scores.npy"), names=str(tmp_path / "names.txt"), out=str(tmp_path / "store"),
            classes=str(write_classes(tmp_path / "classes.txt")), scores="logits", audio_root=str(tmp_path / "audio"),
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"a/x.wav and b/x.wav have the same file name"):
        export_ced(open_store(tmp_path / "store"), tmp_path / "out")


def test_where_an_export_may_go(made: Made, tmp_path: Path) -> None:
    store = open_store(made.path)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UsageError, match="there exists; choose another name"):
        export_parquet(store, tmp_path / "there")
    with pytest.raises(UsageError, match="there is no folder"):
        export_parquet(store, tmp_path / "no/where")
    with pytest.raises(UsageError, match="is a URL; exports are written to a file or folder"):
        export_parquet(store, "s3://bucket/flat.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_nothing_is_left_of_an_export_that_fails(made: Made, tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"flat.parquet' cannot be written: No space left on device"):
        export_parquet(open_store(made.path), tmp_path / "flat.parquet", advance=full)
    assert list(tmp_path.iterdir()) == []


def test_without_h5py(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match="writing CED's HDF5 files needs the package 'h5py'"):
        export_ced(open_store(made.path), tmp_path / "out")
    export_parquet(open_store(made.path), tmp_path / "flat.parquet")


def test_the_command(made: Made, tmp_path: Path) -> None:
    arguments = [str(made.path), "--out", str(tmp_path / "flat.parquet"), "--format"]
    done = CliRunner().invoke(export_command, [*arguments, "ced", "--class-indices"])
    assert done.exit_code == 2
    assert "--class-indices is for --format parquet" in done.stderr
    assert CliRunner().invoke(export_command, [*arguments, "parquet"]).stdout.startswith("108 views written to")
