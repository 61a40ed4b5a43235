"""Fuzzing of stores: what a mutation with a number does to a store, and what may come of it.

Run as a program, ``python -m tests.faults.fuzz_store STORE FIRST STOP``, it prints one line of JSON for every mutation
that ends in anything but an answer or an error of one line, and a last line with counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.errors import LogitstoreError
from tests.faults import mutate
from tests.faults.mutate import Changes
from tests.stores import contents

SECONDS = 20  # after which an operation hangs
MOST_MIB = 400  # that a mutation may add to the memory of the process


def digest(content: bytes) -> str:
    """As stores have it; here on its own, for a test is no use that trusts what it tests."""
    import hashlib

    return hashlib.blake2b(content, digest_size=16).hexdigest()


def signed(commit: Any) -> bytes:
    """A commit with its digest put right, as any stranger can."""
    if not isinstance(commit, dict):
        return json.dumps(commit).encode()
    if isinstance(commit.get("objects"), dict):
        commit["objects"] = dict(sorted(commit["objects"].items()))
    if "digest" in commit:
        commit["digest"] = ""
        commit["digest"] = digest(_line(commit))
    return _line(commit)


def _line(document: Any) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


def mutation(files: dict[str, bytes], number: int) -> Changes:
    """What mutation ``number`` makes of a store's files; digests are put right, so that they hide nothing.

    Kinds take turns, so that as many mutations as there are kinds try each of them.
    """
    chance = random.Random(number)
    kinds = (_commit, _commit, _commit, _root, _root, _array, _array, _chunk, _chunk, _frames, _part, _part, _basis,
             _kind, _stray, _raw, _renamed)  # fmt: skip
    return kinds[number % len(kinds)](chance, files)


def _names(files: dict[str, bytes], begin: str, end: str = "") -> list[str]:
    return sorted(name for name in files if name.startswith(begin) and name.endswith(end))


def _resigned(files: dict[str, bytes], change: Callable[[dict[str, Any]], None]) -> Changes:
    changed: Changes = {}
    for name in _names(files, "commits/"):
        commit = json.loads(files[name])
        change(commit)
        changed[name] = signed(commit)
    return changed


def _commit(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(_names(files, "commits/"))
    if chance.randrange(10) == 0:
        return {name: mutate.json_text(chance, json.loads(files[name]))}
    commit = mutate.change_json(chance, json.loads(files[name]))
    try:
        return {name: signed(commit)}
    except (TypeError, AttributeError):
        return {name: _line(commit)}


def _root(chance: random.Random, files: dict[str, bytes]) -> Changes:
    root = json.loads(files["zarr.json"])
    if chance.randrange(6) == 0:
        content = mutate.json_text(chance, root)
    else:
        root["attributes"]["logitstore"] = mutate.change_json(chance, root["attributes"]["logitstore"])
        content = json.dumps(root).encode()
    return {"zarr.json": content} | _resigned(files, lambda commit: commit.update(manifest_digest=digest(content)))


def _object(files: dict[str, bytes], name: str, content: bytes) -> Changes:
    """An object of a block, named by its commit as it now is."""
    _, block, rest = name.split("/", 2)
    commit = json.loads(files[f"commits/{block}.json"])
    commit["objects"][rest] = digest(content)
    return {name: content, f"commits/{block}.json": signed(commit)}


def _array(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(_names(files, "blocks/", "zarr.json"))
    return _object(files, name, mutate.json_text(chance, json.loads(files[name])))


def _chunk(chance: random.Random, files: dict[str, bytes]) -> Changes:
    """Other bytes in an array, packed or as they are; now and then with a shape that fits them."""
    import pyarrow as pa

    name = chance.choice([name for name in _names(files, "blocks/") if "/c/" in name])
    if chance.randrange(4) == 0 or "/packed/" in name or "/frames/" in name:  # a shard has an index behind its chunks
        return _object(files, name, mutate.change_bytes(chance, files[name]))
    description = f"{name.split('/c/')[0]}/zarr.json"
    shape = json.loads(files[description])
    length = shape["shape"][1]
    content = bytes(pa.decompress(files[name], length, codec="zstd").to_pybytes())
    how = chance.randrange(4)
    if how == 0:
        content = bytes(chance.choice((0, 1, 254, 255)) for _ in range(1)) * chance.choice((length, 1, 10**7))
    elif how == 1:
        content = bytes(chance.randrange(256) for _ in range(length))
    else:
        content = mutate.change_bytes(chance, content)
    packed = bytes(pa.compress(content, codec="zstd").to_pybytes()) if content else b""
    changed = _object(files, name, packed)
    if chance.random() < 0.7:
        shape["shape"][1] = len(content)
        shape["chunk_grid"]["configuration"]["chunk_shape"][1] = max(1, len(content))
        changed |= _object(
            files | {n: c for n, c in changed.items() if isinstance(c, bytes)}, description, _line(shape)
        )
    return changed


def _frames(chance: random.Random, files: dict[str, bytes]) -> Changes:
    """Other numbers in the arrays that say when, packed anew, so that nothing but their sense is wrong."""
    from logitstore.store.format.objects import FRAMES, decode_packed, encode_group, packed_parts

    shards = _names(files, "blocks/", "/frames/c/0/0")
    if not shards:
        return _chunk(chance, files)
    place = chance.choice(shards).removesuffix("frames/c/0/0")
    parts = packed_parts(files[f"{place}frames/zarr.json"], FRAMES)
    arrays = decode_packed(FRAMES, parts, list(parts), lambda name: files[place + name])
    name = chance.choice(list(arrays))
    array = arrays[name].copy()
    how = chance.randrange(5)
    if how == 0:
        array[:] = chance.choice((0, 1, 254, 255))
    elif how == 1 and array.shape[1]:
        array = np.tile(array, (1, chance.choice((2, 10, 10**5))))[:, : 10**7]
    elif how == 2:
        array = array[:, : chance.randrange(array.shape[1] + 1)]
    else:
        for _ in range(chance.choice((1, 3, 30)) if array.size else 0):
            array.reshape(-1)[chance.randrange(array.size)] = chance.choice((0, 1, 2, 127, 254, 255))
    changed: Changes = {}
    for object_name, content in encode_group({}, {}, {FRAMES: arrays | {name: array}}).items():
        if object_name.startswith(FRAMES):
            known = files | {each: held for each, held in changed.items() if isinstance(held, bytes)}
            changed |= _object(known, f"{place}{object_name}", content)
    return changed


def _part(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(_names(files, "clips/"))
    content = mutate.change_parquet(chance, files[name])

    def change(commit: dict[str, Any]) -> None:
        if commit["clip_table"] == name:
            commit["clip_table_digest"] = digest(content)

    return {name: content} | _resigned(files, change)


def _basis(chance: random.Random, files: dict[str, bytes]) -> Changes:
    if "basis.safetensors" not in files:
        return _commit(chance, files)
    old = files["basis.safetensors"]
    size = int.from_bytes(old[:8], "little")
    if chance.random() < 0.5:
        header = json.dumps(mutate.change_json(chance, json.loads(old[8 : 8 + size]))).encode()
        content = len(header).to_bytes(8, "little") + header + old[8 + size :]
    else:
        content = mutate.change_bytes(chance, old)
    return {"basis.safetensors": content} | _resigned(files, lambda commit: commit.update(basis=digest(content)))


def _kind(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(sorted(files))
    folders = [name.rsplit("/", depth)[0] for depth in range(name.count("/") + 1)]
    return {chance.choice(folders): mutate.special(chance)}


_STRAYS = ("claims/000000.json", "claims/x.json", "claims/000000/x", "tmp/x", "tmp/a~b~c~d", "commits/x.json",
           "commits/000009-0-1.json", "commits/000000-0-1.json", "clips/x.parquet", "clips/00007.parquet",
           "blocks/x", "blocks/000000-0-1/x", "x", "commits/é\x1b.json", "a/b/c/d/e/f/g/h/i/j")  # fmt: skip


def _stray(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(_STRAYS)
    claim = {"host": "h", "pid": 1, "token": "t", "expires": 9e12}
    content = mutate.json_text(chance, claim) if name.startswith("claims") else mutate.change_bytes(chance, b"x" * 40)
    return {name: mutate.special(chance) if chance.randrange(4) == 0 else content}


def _raw(chance: random.Random, files: dict[str, bytes]) -> Changes:
    name = chance.choice(sorted(files))
    return {name: None if chance.randrange(5) == 0 else mutate.change_bytes(chance, files[name])}


def _renamed(chance: random.Random, files: dict[str, bytes]) -> Changes:
    """A commit or a part under another name, beside the one that it has."""
    name = chance.choice(_names(files, "commits/") + _names(files, "clips/"))
    numbers = (0, 1, 2, 5, 10**6, 10**20)
    if name.startswith("clips/"):
        return {f"clips/{chance.choice(numbers):05d}.parquet": files[name]}
    commit = json.loads(files[name])
    commit |= {
        "shard": chance.choice(numbers),
        "view_start": chance.choice(numbers),
        "view_stop": chance.choice(numbers),
    }
    block = f"{commit['shard']:06d}-{commit['view_start']}-{commit['view_stop']}"
    return {f"commits/{block}.json"[:200]: signed(commit | {"group": f"blocks/{block}"})}


# what is done with each


def operations() -> dict[str, Callable[[Path], object]]:
    """What is done with a store that a stranger sent."""
    from logitstore import open_store
    from logitstore.jobs.status import status
    from logitstore.jobs.verify.audit import audit
    from logitstore.store.storage import LocalStorage

    def targets(path: Path) -> None:
        store = open_store(path)
        for view in range(min(store.views, 12)):
            clips = store.clips_of(view)
            store.targets(view, clips)
            store.draws(view, clips)
            store.lengths(clips)
            if store.manifest.relations is not None:
                store.relations(view, clips)
            if store.manifest.quality is not None:
                store.rests(view, clips)
            if store.manifest.frames is not None:
                store.frames(view, clips[:4]).dense()
        for commit in store.commits[:2]:
            store.block_members(commit)
        _ = store.clips

    def sql(path: Path) -> None:
        store = open_store(path)  # one query, for each starts DuckDB anew
        clips = "(SELECT count(*) FROM clips), (SELECT max(path) FROM clips)"
        times = "(SELECT max(end_s - start_s) FROM frames)" if store.manifest.frames is not None else "0"
        store.sql(f"SELECT count(class), min(clip), {clips}, {times} FROM topk")

    def summary(path: Path) -> str:
        store = open_store(path)
        return status(str(path)).render() + repr(store) + store._repr_html_()

    return {
        "status and summary": summary,
        "targets": targets,
        "verify": lambda path: audit(LocalStorage(path)).problems,
        "sql": sql,
    }


class HangsError(BaseException):
    """An operation took longer than it may."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Ends what takes longer."""

    def ring(*_: object) -> None:
        raise HangsError(f"after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault(operation: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how an operation ends; None where it answers, or refuses in one line."""
    try:
        with alarm(SECONDS):
            operation(path)
    except LogitstoreError as error:
        return None if str(error) and "\n" not in str(error) else f"an error of several lines: {str(error)!r}"
    except (Exception, HangsError) as error:  # noqa: BLE001 - any is a finding
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-3:]
        return (
            f"{type(error).__name__}: {str(error)[:200]} at {', '.join(f'{f.filename[-40:]}:{f.lineno}' for f in last)}"
        )
    return None


def try_all(store: Path, numbers: range) -> Iterator[dict[str, Any]]:
    """The faults of some mutations of a store, which is as it was in the end; the last of them says how many ran."""
    files = contents(store)
    known = operations()
    for operation in known.values():
        operation(store)
    base = _peak()
    for number in numbers:
        (store.parent / "number").write_text(str(number))  # for who finds this process dead
        changes = mutation(files, number)
        mutate.apply(store, changes)
        for name, operation in known.items():
            found = fault(operation, store)
            if found is not None:
                yield {"number": number, "operation": name, "changed": sorted(changes), "fault": found}
            if _peak() - base > MOST_MIB:
                yield {
                    "number": number,
                    "operation": name,
                    "changed": sorted(changes),
                    "fault": f"{_peak() - base} MiB",
                }
                base = _peak()
        mutate.restore(store, files, changes)
        if number % 50 == 0 and contents(store) != files:
            raise AssertionError(f"mutation {number} or one before it was not undone")
    yield {"ran": len(numbers), "mib": _peak() - base}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(arguments: list[str]) -> None:
    """Try mutations FIRST to STOP of a store."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    store, first, stop = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    os.environ["TMPDIR"] = str(store.parent)
    limit = 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for found in try_all(store, range(first, stop)):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
